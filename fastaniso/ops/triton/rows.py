"""Where rows lie: cut an input into launches on the host, turn row numbers into offsets on the device."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """Rows of one launch: a view (outer, inner, d) of the input, its mask, and the flat index of its first row."""

    values: Tensor
    mask: Tensor | None
    first: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.values.shape[0] * self.values.shape[1]

    @property
    def layout(self) -> dict[str, int | bool]:
        """The kernels' arguments ``inner``, ``stride_outer``, ``stride_inner``, ``ONE_AXIS`` and ``ALIGN``."""
        outer, inner, _ = self.values.shape
        stride_outer, stride_inner, _ = self.values.stride()
        if inner == 1:
            inner, stride_inner, outer = outer, stride_outer, 1
        one_axis = outer == 1 or stride_outer == inner * stride_inner
        if one_axis:
            stride_outer = 0
        return {
            "inner": inner,
            "stride_outer": stride_outer,
            "stride_inner": stride_inner,
            "ONE_AXIS": one_axis,
            # Triton itself sees strides that are multiples of 16; d = 1000 allows vectors of 8 all the same.
            "ALIGN": next(a for a in (16, 8, 4, 2, 1) if stride_outer % a == 0 and stride_inner % a == 0),
        }


def blocks(hidden: Tensor, mask: Tensor | None, limit: int) -> Iterator[Block]:
    """Cut the rows, in order, into blocks of at most ``limit`` rows that depend on the shape alone.

    Every block is a view, so that a row's number within a launch fits int32 and a launch ends soon enough for Ctrl-C.
    """
    outer, inner, _ = hidden.shape
    if outer == 0 or inner == 0:
        return
    if inner <= limit:
        step = limit // inner
        for first in range(0, outer, step):
            part = slice(first, first + step)
            yield Block(hidden[part], None if mask is None else mask[part], first * inner)
        return
    for first in range(outer):
        for start in range(0, inner, limit):
            part = slice(start, start + limit)
            sub_mask = None if mask is None else mask[first : first + 1, part]
            yield Block(hidden[first : first + 1, part], sub_mask, first * inner + start)


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Launches go to the current device: make it the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


class Pace:
    """Keeps the host at most so many launches ahead of the device."""

    def __init__(self, device: torch.device, ahead: int) -> None:
        """Of a device without launches of its own, nothing."""
        self._ahead = ahead
        self._events: deque[torch.cuda.Event] | None = deque() if device.type == "cuda" else None

    def wait(self) -> None:
        """Called after a launch."""
        if self._events is None:
            return
        event = torch.cuda.Event()
        event.record()
        self._events.append(event)
        if len(self._events) > self._ahead:
            self._events.popleft().synchronize()


def current_target() -> str:
    """``"cuda"``, ``"hopper"``, ``"blackwell"``, ``"rocm"`` or ``"interpreter"``: where the kernels' shapes differ."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "interpreter"
    target = triton.runtime.driver.active.get_current_target()
    if target.backend == "hip":
        return "rocm"
    # Of compute capability 12 only the data centre's 10 has its tensor memory, and 99 KiB of shared memory.
    return {9: "hopper", 10: "blackwell"}.get(target.arch // 10, "cuda")


@triton.jit
def row_offsets(rows, inner, stride_outer, stride_inner, ONE_AXIS: tl.constexpr, ALIGN: tl.constexpr):
    """Offset of each row's first number, in int64: n·d passes 2³¹ at n = 10⁶, d = 2148."""
    if ONE_AXIS:
        offsets = rows.to(tl.int64) * stride_inner
    else:
        offsets = (rows // inner).to(tl.int64) * stride_outer + (rows % inner).to(tl.int64) * stride_inner
    return tl.multiple_of(offsets, ALIGN)


@triton.jit
def wanted_rows(mask, rows, count):
    """Which rows exist and are not masked."""
    wanted = rows < count
    if mask is not None:
        wanted &= tl.load(mask + rows, mask=wanted, other=0) != 0
    return wanted
