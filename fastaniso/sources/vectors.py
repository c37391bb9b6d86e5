"""Stored vectors as memory-mapped tensors: nothing is loaded before it is read, and no code ever runs from a file."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastaniso.rows import DTYPES, as_tensor

BLOCK_BYTES = 64 << 20
"""Bytes of a file read between two signs of progress."""


class CorruptFileError(ValueError):
    """A file of vectors is damaged, or holds something that cannot be read without running code."""


@dataclass(frozen=True)
class Vectors:
    """Rows of one stored array: ``values`` (rows, d), mapped from the file."""

    path: Path
    tensor: str | None
    values: Tensor

    @property
    def source(self) -> str:
        """Name of the array for the record: path, and the tensor's name where the file has names."""
        return str(self.path) if self.tensor is None else f"{self.path}:{self.tensor}"

    def blocks(self, rows: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """(index of the first row, rows) from start to end; by default 64 MiB at a time."""
        step = rows or max(1, BLOCK_BYTES // max(1, self.values.shape[1] * self.values.element_size()))
        for start in range(0, len(self.values), step):
            block = self.values[start : start + step]
            # Columns side by side (Fortran order) are turned block by block: never the file as a whole.
            yield start, block if block.stride(1) == 1 or block.shape[1] == 1 else block.contiguous()


def open_vectors(path: str | os.PathLike[str], *, tensor: str | None = None) -> Vectors:
    """Map ``.npy``, ``.safetensors`` or ``.pt``; ``tensor`` names one where the file holds several.

    ``[..., d]`` is read as rows of d numbers. Raises ``CorruptFileError`` for a damaged file and for one that holds
    Python objects, ``ValueError`` for a wrong name or shape.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: there is no file {str(path)!r}")
    readers = {".npy": _open_npy, ".safetensors": _open_safetensors, ".pt": _open_torch, ".pth": _open_torch}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"path: expected .npy, .safetensors or .pt, got {path.name!r}")
    name, values = reader(path, tensor)
    if values.dtype not in DTYPES:
        raise ValueError(
            f"{path}: expected float32, float64, float16 or bfloat16, got {str(values.dtype).removeprefix('torch.')}"
        )
    if values.dim() < 2:
        raise ValueError(
            f"{path}: expected rows of vectors, [..., d] with at least two axes, got shape {tuple(values.shape)}"
        )
    return Vectors(path, name, values if values.dim() == 2 else values.flatten(0, -2))


def _open_npy(path: Path, tensor: str | None) -> tuple[None, Tensor]:
    import numpy as np

    if tensor is not None:
        raise ValueError(f"tensor: an .npy file holds one array without a name, got tensor={tensor!r}")
    if not path.stat().st_size:
        raise CorruptFileError(f"{path}: the file is empty")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        if "pickle" in str(error) or "Python objects" in str(error):
            raise CorruptFileError(
                f"{path}: holds Python objects, which only running code from the file could load: refused; "
                "save an array of numbers"
            ) from error
        raise CorruptFileError(_refused(path, "an .npy array", error)) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise CorruptFileError(f"{path}: an .npz archive named .npy; save one array with numpy.save")
    if not array.dtype.isnative:
        raise ValueError(
            f"{path}: numbers of the other byte order ({array.dtype}) cannot be read in place; "
            "save array.astype(array.dtype.newbyteorder('='))"
        )
    return None, as_tensor(array, str(path))


def _open_safetensors(path: Path, tensor: str | None) -> tuple[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            name = _choose(path, list(file.keys()), tensor)
            return name, file.get_tensor(name)
    except SafetensorError as error:
        raise CorruptFileError(_refused(path, "safetensors", error)) from error


def _open_torch(path: Path, tensor: str | None) -> tuple[str | None, Tensor]:
    if not zipfile.is_zipfile(path):
        raise CorruptFileError(
            f"{path}: not the zip format that torch.save writes since PyTorch 1.6, or cut short; "
            "only that format can be memory-mapped"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CorruptFileError(
            f"{path}: holds Python objects besides tensors, which only running code from the file could load: refused; "
            "save the tensors alone"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise CorruptFileError(_refused(path, "tensors of torch.save", error)) from error
    if isinstance(content, Tensor):
        if tensor is not None:
            raise ValueError(f"tensor: {path} holds one tensor without a name, got tensor={tensor!r}")
        return None, content
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a tensor or a dict of tensors, got {type(content).__name__}")
    named = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    name = _choose(path, list(named), tensor)
    return name, named[name]


def _choose(path: Path, names: list[str], wanted: str | None) -> str:
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    if wanted is None:
        if len(names) == 1:
            return names[0]
        raise ValueError(f"tensor: {path} holds {len(names)} tensors; name one of {listed or 'none'}")
    if wanted not in names:
        raise ValueError(f"tensor: {path} holds no {wanted!r}; it has {listed or 'no tensors'}")
    return wanted


def _refused(path: Path, expected: str, error: Any) -> str:
    return f"{path}: cannot be read as {expected}: {str(error).strip().partition(chr(10))[0][:200]}"
