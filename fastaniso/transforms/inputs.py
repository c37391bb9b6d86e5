"""Rows in and rows out: of a tensor a tensor, of whatever else scikit-learn takes an array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import torch
from torch import Tensor

from fastaniso.rows import Rows
from fastaniso.statistics.host import InvalidRowsError
from fastaniso.transforms.sums import block_rows

FLOATS = (numpy.float64, numpy.float32, numpy.float16)
"""Dtypes of arrays that are kept; others become the first."""


def readable(array: Any) -> Any:
    """The array, or a copy where the numbers of a row do not lie side by side (Fortran order, reversed)."""
    in_place = array.strides[-1] == array.itemsize and min(array.strides) >= 0
    return array if in_place else numpy.ascontiguousarray(array)


def refuse_nonfinite(rows: Rows) -> None:
    """Raise ``InvalidRowsError`` if a row that the mask keeps holds NaN or Inf."""
    count, first = 0, -1
    for start, block in rows.blocks(block_rows(rows)):
        bad = ~block.values.isfinite().all(2)
        if block.mask is not None:
            bad &= block.mask
        found = bad.flatten().nonzero()
        if len(found) and not count:
            first = start + int(found[0])
        count += len(found)
    if count:
        raise InvalidRowsError(
            f"X: row {first} holds NaN or Inf ({count} such row(s); rows count over all leading axes); "
            "drop such rows, or leave them out with mask="
        )


def mapped(X: Any, rows: Rows, width: int, function: Callable[[Tensor], Tensor]) -> Any:
    """``function`` of float64 blocks (m, d) → (m, width), in the dtype of X and its shape, ``[..., width]``.

    A block is a copy, and the function's to write to: a page of memory more a block costs as much as the arithmetic.
    ``rows`` are those of X; where their mask keeps one that is not finite, ``InvalidRowsError``. Gradients flow to a
    tensor that asks for them.
    """
    values = rows.values
    if isinstance(X, Tensor) and X.requires_grad:
        values = X.as_strided(values.shape, values.stride(), X.storage_offset())
    out = torch.empty(rows.count, width, dtype=values.dtype, device=values.device)
    for start, block in Rows(values, None).blocks(block_rows(rows)):
        exact = block.values.to(torch.float64, copy=True, memory_format=torch.contiguous_format).view(-1, rows.dim)
        # NaN and Inf show in a sum, which costs one read; a sum may also overflow, so what it shows is looked into.
        if not exact.detach().sum().isfinite():
            refuse_nonfinite(rows)
        out[start : start + len(exact)] = function(exact)
    out = out.view(*X.shape[:-1], width)
    return out if isinstance(X, Tensor) else out.numpy()
