"""Panels: kept rows of a range, brought side by side in the form that the tensor cores read.

All pairs are visited two panels at a time, each at most 64 MiB, whatever the input's size and strides:

- float16, bfloat16: x·2^−e, 2^e the size of the row's norm, so that no product overflows or vanishes; nothing is
  rounded. (float16 rows are lifted by 2¹² besides, away from its subnormal numbers.)
- float32: x·2^−e in three bfloat16 parts side by side, which together are x·2^−e; with ``precision="fast"`` rounded to
  float16, as if float16 rows had come.
- float64: u = x/‖x‖.

With the weights w = 2^e/‖x‖ (float64: none) a cosine is the product of two panel rows times both their weights. Dropped
rows have no place in a panel, so no kernel need ask; how many rows it holds stays on the device.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from fastaniso.ops.triton.products import three_parts
from fastaniso.ops.triton.rows import row_offsets
from fastaniso.ops.triton.scales import exponent_of, power_of
from fastaniso.ops.triton.shapes import PairTile

LIFT = 12
TILE_ROWS = 8
TILE_COLUMNS = 128


@triton.jit(do_not_specialize=["first"])
def panel_kernel(
    values,  # rows at `inner`, `stride_outer`, `stride_inner`
    norms,  # (n,) float64
    kept_rows,  # (n,) int64: the rows that are kept, in order
    kept,  # (1,) int64: how many
    panel,  # (rows, parts·width)
    weights,  # (rows,) float32, or None for float64 rows
    first,
    inner,
    stride_outer,
    stride_inner,
    ONE_AXIS: tl.constexpr,
    ALIGN: tl.constexpr,
    D,
    width,
    PARTS: tl.constexpr,
    LIFT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Fill ROWS rows of a panel that starts with the ``first`` of the kept rows; zeros where there are no more."""
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exist = first + places < tl.load(kept)
    rows = tl.load(kept_rows + first + places, mask=exist, other=0)
    norm = tl.load(norms + rows, mask=exist, other=1.0)
    offsets = row_offsets(rows, inner, stride_outer, stride_inner, ONE_AXIS, ALIGN)
    power = power_of(-exponent_of(norm))
    if PARTS > 0:
        lift = power_of(tl.full((), LIFT, tl.int64))
        tl.store(weights + places, tl.where(exist, 1.0 / (norm * power * lift), 0.0).to(tl.float32))
        scale = (power * lift).to(tl.float32)
    target = panel + places.to(tl.int64)[:, None] * (width if PARTS == 0 else PARTS * width)
    for column in tl.range(0, width, COLUMNS):
        columns = column + tl.arange(0, COLUMNS)
        mask = exist[:, None] & (columns < D)[None, :]
        x = tl.load(values + (offsets[:, None] + columns[None, :]), mask=mask, other=0.0)
        inside = (columns < width)[None, :]
        place = target + columns[None, :]
        if PARTS == 0:
            # In two steps: 1/‖x‖ of a subnormal norm would overflow.
            tl.store(place, x * power[:, None] * (1.0 / (norm * power))[:, None], mask=inside)
        elif PARTS == 3:
            high, middle, low = three_parts(x * scale[:, None])
            tl.store(place, high, mask=inside)
            tl.store(place + width, middle, mask=inside)
            tl.store(place + 2 * width, low, mask=inside)
        else:
            tl.store(place, (x.to(tl.float32) * scale[:, None]).to(panel.dtype.element_ty), mask=inside)


@dataclass(frozen=True)
class Panel:
    """Kept rows from the ``first``-th on: ``values`` (…, parts·width), ``weights`` (…,) (none of float64).

    There are at most ``rows`` of them, fewer where rows were dropped.
    """

    values: Tensor
    weights: Tensor | None
    width: int
    first: int
    rows: int


@dataclass(frozen=True)
class PanelPair:
    """Two panels, or twice the same one; of float64 panels also their ``products`` (rows, others)."""

    left: Panel
    right: Panel
    products: Tensor | None

    @property
    def triangle(self) -> bool:
        """Whether it is one panel, whose pairs are those i < j."""
        return self.left is self.right

    @property
    def width(self) -> int:
        """Numbers of a row that are multiplied; of products, their number."""
        return self.left.width if self.products is None else self.products.shape[1]

    def operands(self, tile: PairTile) -> tuple[Any, Any, Tensor | None, Tensor | None]:
        """Left and right and their weights, as the kernels take them."""
        if self.products is not None:
            return self.products, None, None, None
        left, right = (
            TensorDescriptor.from_tensor(panel.values, [tile.side, tile.K]) if tile.described else panel.values
            for panel in (self.left, self.right)
        )
        return left, right, self.left.weights, self.right.weights
