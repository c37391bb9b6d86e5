"""From the device to the host in one synchronisation, and the error for rows that cannot be normalised."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaniso.result import Dropped

INVALID = ("raise", "omit")


class InvalidRowsError(ValueError):
    """Rows that cannot be normalised (zero, NaN or Inf), or group ids outside the groups."""


def to_host(*tensors: Tensor) -> list[NDArray[Any]]:
    """The tensors as flat arrays on the host: views where they are there already, else one transfer.

    What is transferred becomes float64, and counts stay exact up to 2⁵³.
    """
    if tensors[0].is_cpu:
        return [tensor.numpy().reshape(-1) for tensor in tensors]
    flat = torch.cat([tensor.reshape(-1).double() for tensor in tensors]).cpu()
    return [part.numpy() for part in torch.split(flat, [tensor.numel() for tensor in tensors])]


def check_invalid_option(invalid: str) -> None:
    """Refuse anything but ``"raise"`` and ``"omit"``."""
    if invalid not in INVALID:
        raise ValueError(f"invalid: expected 'raise' or 'omit', got {invalid!r}")


def dropped_rows(counts: NDArray[Any], invalid: str, *, name: str = "hidden") -> Dropped:
    """What ``Moments.counts`` says was dropped; raises ``InvalidRowsError`` if rows could not be normalised."""
    _, masked, zero, nonfinite, first = map(int, counts.tolist())
    if invalid == "raise" and (zero or nonfinite):
        raise InvalidRowsError(_invalid_rows(name, first, zero, nonfinite))
    return Dropped(masked=masked, zero=zero, nonfinite=nonfinite)


def dropped_group_rows(dropped: NDArray[Any], num_groups: int, invalid: str) -> Dropped:
    """The same of ``GroupMoments.dropped``; ids outside 0..G−1 always raise: they are a mistake of the caller."""
    masked, zero, nonfinite, outside, first = map(int, dropped.tolist())
    if outside:
        raise InvalidRowsError(
            f"groups: expected ids from 0 to {num_groups - 1} (groups={num_groups}), and {outside} row(s) have an id "
            "outside; renumber them with torch.unique(groups, return_inverse=True)[1], or mask the rows"
        )
    if invalid == "raise" and (zero or nonfinite):
        raise InvalidRowsError(_invalid_rows("hidden", first, zero, nonfinite))
    return Dropped(masked=masked, zero=zero, nonfinite=nonfinite)


def _invalid_rows(name: str, first: int, zero: int, nonfinite: int) -> str:
    if not nonfinite:
        what = f"row {first} is zero ({zero} such row(s))"
    elif not zero:
        what = f"row {first} holds NaN or Inf ({nonfinite} such row(s))"
    else:
        what = f"row {first} is the first that is zero or holds NaN or Inf ({zero} zero, {nonfinite} NaN or Inf)"
    return (
        f"{name}: {what} and has no direction to take a cosine of (rows count over all leading axes); "
        "drop such rows with mask=, or pass invalid='omit' to leave them out and count them"
    )
