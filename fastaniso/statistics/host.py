"""From the device to the host in one synchronisation, and the error for rows that cannot be normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastaniso.result import Dropped

if TYPE_CHECKING:
    from numpy.typing import NDArray

INVALID = ("raise", "omit")


class InvalidRowsError(ValueError):
    """Rows that cannot be normalised (zero, NaN or Inf), or group ids outside the groups."""


def to_host(*tensors: Tensor) -> list[NDArray]:  # type: ignore[type-arg]
    """The tensors as flat float64 arrays on the host, in one transfer; counts stay exact up to 2⁵³."""
    flat = torch.cat([tensor.reshape(-1).double() for tensor in tensors]).cpu().numpy()
    arrays = []
    start = 0
    for tensor in tensors:
        arrays.append(flat[start : start + tensor.numel()])
        start += tensor.numel()
    return arrays


def check_invalid_option(invalid: str) -> None:
    """Refuse anything but ``"raise"`` and ``"omit"``."""
    if invalid not in INVALID:
        raise ValueError(f"invalid: expected 'raise' or 'omit', got {invalid!r}")


def dropped_rows(counts: Sequence[float], invalid: str, *, name: str = "hidden") -> Dropped:
    """What ``Moments.counts`` says was dropped; raises ``InvalidRowsError`` if rows could not be normalised."""
    masked, zero, nonfinite = int(counts[1]), int(counts[2]), int(counts[3])
    if invalid == "raise" and (zero or nonfinite):
        raise InvalidRowsError(_invalid_rows(name, int(counts[4]), zero, nonfinite))
    return Dropped(masked=masked, zero=zero, nonfinite=nonfinite)


def dropped_group_rows(dropped: Sequence[float], num_groups: int, invalid: str, *, name: str = "hidden") -> Dropped:
    """The same of ``GroupMoments.dropped``; ids outside 0..G−1 always raise: they are a mistake of the caller."""
    masked, zero, nonfinite, outside, first = (int(count) for count in dropped)
    if outside:
        raise InvalidRowsError(
            f"groups: expected ids from 0 to {num_groups - 1} (groups={num_groups}), and {outside} row(s) have an id "
            "outside; renumber them with torch.unique(groups, return_inverse=True)[1], or mask the rows"
        )
    return dropped_rows((0, masked, zero, nonfinite, first), invalid, name=name)


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
