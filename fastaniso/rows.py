"""Validate what a caller passed and view it as rows: never a copy, never a conversion, never a move."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy
import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@runtime_checkable
class Blocks(Protocol):
    """Rows that come a block at a time, as often as asked: ``Rows``, or rows that stay where they are stored."""

    @property
    def count(self) -> int:
        """Rows, masked ones included."""

    @property
    def dim(self) -> int:
        """Numbers in a row."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the numbers."""

    @property
    def device(self) -> torch.device:
        """Where the blocks are."""

    def blocks(self, size: int) -> Iterator[tuple[int, Rows]]:
        """All rows in blocks of about ``size`` rows, each with the index of its first row."""


@dataclass(frozen=True)
class Rows:
    """Hidden states as ``values`` (outer, inner, d), the last axis contiguous, and ``mask`` (outer, inner) or None.

    Two row axes, because a slice such as ``hidden[:, 1:]`` has rows at two strides and is read in place.
    """

    values: Tensor
    mask: Tensor | None

    @property
    def dim(self) -> int:
        """Numbers in a row."""
        return self.values.shape[2]

    @property
    def count(self) -> int:
        """Rows, masked ones included."""
        return self.values.shape[0] * self.values.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of the numbers."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.values.device

    def blocks(self, size: int) -> Iterator[tuple[int, Rows]]:
        """The rows in views of about ``size`` rows, each with the index of its first row.

        Of rows at two strides a view takes whole outer rows, or a part of one.
        """
        outer, inner, _ = self.values.shape
        rows_at_once = max(size // inner, 1) if inner else 1
        for o in range(0, outer, rows_at_once):
            block = slice(o, o + rows_at_once)
            for i in range(0, inner, size if rows_at_once == 1 else inner):
                part = slice(i, i + size) if rows_at_once == 1 else slice(None)
                mask = None if self.mask is None else self.mask[block, part].contiguous()
                yield o * inner + i, Rows(self.values[block, part], mask)


def as_rows(hidden: Any, mask: Any = None, *, name: str = "hidden") -> Rows:
    """View ``hidden`` ``[..., d]`` (tensor, NumPy array, or anything with DLPack) and ``mask`` ``[...]`` as rows."""
    tensor = as_tensor(hidden, name)
    if tensor.dtype not in DTYPES:
        raise TypeError(
            f"{name}: expected float32, float64, float16 or bfloat16, got {_words(tensor.dtype)}; "
            f"convert it first, for example {name}.float()"
        )
    if tensor.dim() < 2:
        raise ValueError(
            f"{name}: expected [..., d] with at least two axes, got shape {tuple(tensor.shape)}; "
            f"a single vector is {name}[None]"
        )
    if tensor.shape[-1] == 0:
        raise ValueError(f"{name}: expected rows of at least one number, got shape {tuple(tensor.shape)}")
    values = _two_row_axes(tensor.detach(), name)
    return Rows(values, None if mask is None else _as_mask(mask, tensor, values, name))


def as_blocks(hidden: Any, mask: Any = None) -> Blocks:
    """``hidden`` itself where it comes in blocks, such as an opened source; else as ``as_rows`` views it."""
    if not isinstance(hidden, Blocks):
        return as_rows(hidden, mask)
    if mask is not None:
        raise ValueError("mask: stored rows are all measured; leave mask out, or pass the rows as an array")
    return hidden


def as_tensor(array: Any, name: str) -> Tensor:
    """The tensor that shares memory with ``array``."""
    if isinstance(array, Tensor):
        if array.layout != torch.strided:
            raise TypeError(f"{name}: expected a dense tensor, got layout {array.layout}; convert it with .to_dense()")
        return array
    if isinstance(array, numpy.ndarray):
        return _from_numpy(array, name)
    if hasattr(array, "__dlpack__"):
        return torch.utils.dlpack.from_dlpack(array)
    raise TypeError(
        f"{name}: expected a torch tensor, a NumPy array or an object with __dlpack__, got {type(array).__name__}; "
        "make one with torch.as_tensor(...)"
    )


def _from_numpy(array: Any, name: str) -> Tensor:
    try:
        if array.flags.writeable:
            return torch.from_numpy(array)
        with warnings.catch_warnings():
            # A read-only array or memory-map is welcome: rows are only ever read.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name}: a NumPy array of dtype {array.dtype} and strides {array.strides} cannot be read in place "
            f"({error}); pass numpy.ascontiguousarray({name}) of a float dtype"
        ) from error


def _two_row_axes(tensor: Tensor, name: str) -> Tensor:
    """(..., d) as a view (outer, inner, d); leading axes that lie evenly behind each other become one."""
    dim = tensor.shape[-1]
    if tensor.stride(-1) != 1 and dim > 1:
        raise ValueError(
            f"{name}: expected the numbers of a row side by side (last stride 1), got strides {tensor.stride()}; "
            f"pass {name}.contiguous()"
        )
    if tensor.dim() == 2:
        return tensor.unsqueeze(0)
    sizes: list[int] = []
    strides: list[int] = []
    for size, stride in zip(tensor.shape[:-1], tensor.stride()[:-1], strict=True):
        if size == 1:
            continue
        if sizes and strides[-1] == size * stride:
            sizes[-1], strides[-1] = sizes[-1] * size, stride
        else:
            sizes.append(size)
            strides.append(stride)
    if len(sizes) > 2 and tensor.numel():
        raise ValueError(
            f"{name}: rows lie at more than two strides (shape {tuple(tensor.shape)}, strides {tensor.stride()}) and "
            f"cannot be read in place; pass {name}.contiguous() or {name}.flatten(0, -2)"
        )
    if not tensor.numel():
        return tensor.new_empty(1, 0, dim)
    while len(sizes) < 2:
        sizes.insert(0, 1)
        strides.insert(0, 0)
    return tensor.as_strided((*sizes, dim), (*strides, 1))


def _as_mask(mask: Any, tensor: Tensor, values: Tensor, name: str) -> Tensor:
    given = as_tensor(mask, "mask")
    if given.dtype != torch.bool:
        raise TypeError(f"mask: expected bool (True keeps a row), got {_words(given.dtype)}; pass mask.bool()")
    if given.shape != tensor.shape[:-1]:
        raise ValueError(
            f"mask: expected the shape of {name} without its last axis, {tuple(tensor.shape[:-1])}, "
            f"got {tuple(given.shape)}"
        )
    if given.device != tensor.device:
        raise ValueError(
            f"mask: expected it on {tensor.device} beside {name}, got {given.device}; pass mask.to({name}.device)"
        )
    return given.reshape(values.shape[:2]).contiguous()


def as_groups(groups: Any, rows: Rows, shape: torch.Size, *, name: str = "groups") -> Tensor:
    """View integer group labels ``[...]`` as int64 (outer, inner) beside the rows."""
    given = as_tensor(groups, name)
    if given.dtype.is_floating_point or given.dtype.is_complex or given.dtype == torch.bool:
        raise TypeError(f"{name}: expected integers, got {_words(given.dtype)}")
    if given.shape != shape:
        raise ValueError(
            f"{name}: expected the shape of hidden without its last axis, {tuple(shape)}, got {tuple(given.shape)}"
        )
    if given.device != rows.values.device:
        raise ValueError(
            f"{name}: expected them on {rows.values.device} beside hidden, got {given.device}; "
            f"pass {name}.to(hidden.device)"
        )
    return given.reshape(rows.values.shape[:2]).to(torch.int64).contiguous()


def _words(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
