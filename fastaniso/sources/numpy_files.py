"""``.npy``: one array without a name."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastaniso.rows import as_tensor
from fastaniso.sources.errors import CorruptFileError
from fastaniso.sources.locations import RemotePath
from fastaniso.sources.mapped import MappedRows
from fastaniso.sources.ranges import RangeRows
from fastaniso.sources.source import Source, float_dtype

_LONGEST_HEADER = 10_000
"""Bytes; NumPy's own limit."""

# Read without evaluating anything; records, whose dtype is a list, do not fit.
_FIELDS = [
    re.compile(rf"['\"]{key}['\"]\s*:\s*{value}")
    for key, value in {
        "descr": r"['\"]([<>=|]?[A-Za-z]\d*)['\"]",
        "fortran_order": "(True|False)",
        "shape": r"\(([\d, ]*)\)",
    }.items()
]

_DTYPES = {"f8": torch.float64, "f4": torch.float32, "f2": torch.float16}


def open_numpy(path: Path | RemotePath) -> Source:
    """Map an ``.npy`` file; one that holds Python objects is refused, because only running code could load it."""
    if isinstance(path, RemotePath):
        return _open_ranges(path)
    if not path.stat().st_size:
        raise CorruptFileError(f"{path}: the file is empty")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        # A damaged header can make its parser raise anything.
        if "pickle" in str(error) or "Python objects" in str(error):
            raise _objects(path) from error
        raise CorruptFileError(f"{path}: cannot be read as an .npy array: {error}") from error
    if not isinstance(array, np.memmap):
        array.close()
        raise CorruptFileError(f"{path}: an .npz archive named .npy; save one array with numpy.save")
    if not array.dtype.isnative:
        raise _other_order(path, array.dtype)
    tensor = as_tensor(array, str(path))
    return MappedRows(
        path, float_dtype(str(path), tensor.dtype), tuple(tensor.shape), array.offset, strides=tensor.stride()
    )


def _open_ranges(path: RemotePath) -> RangeRows:
    """One that lies elsewhere: its header is read here, and its rows when they are asked for."""
    header, offset = _header(path)
    said = [pattern.search(header) for pattern in _FIELDS]
    if not all(said):
        raise CorruptFileError(f"{path}: cannot be read as an .npy array of numbers: its header says {header[:200]!r}")
    kind, fortran, sizes = (found[1] for found in said if found is not None)
    shape = tuple(int(size) for size in sizes.split(",") if size.strip())
    if "O" in kind:
        raise _objects(path)
    if kind[0] == (">" if sys.byteorder == "little" else "<"):
        raise _other_order(path, kind)
    dtype = float_dtype(str(path), _DTYPES.get(kind.lstrip("<>=|"), kind))
    if fortran == "True" and sum(size != 1 for size in shape) > 1:
        raise ValueError(
            f"{path}: its columns lie side by side (Fortran order), and each block would be as many reads; "
            "save numpy.ascontiguousarray(array)"
        )
    return RangeRows(path, dtype, shape, offset)


def _header(path: RemotePath) -> tuple[str, int]:
    """The header, and the byte behind it."""
    begin = path.read(0, min(_LONGEST_HEADER + 12, path.size))
    if not begin:
        raise CorruptFileError(f"{path}: the file is empty")
    if not begin.startswith(b"\x93NUMPY") or begin[6:8] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise CorruptFileError(f"{path}: cannot be read as an .npy array: it does not begin as one")
    offset = 10 if begin[6] == 1 else 12
    length = int.from_bytes(begin[8:offset], "little")
    if length > _LONGEST_HEADER or len(begin) < offset + length:
        raise CorruptFileError(f"{path}: cannot be read as an .npy array: its header is cut short, or none")
    return begin[offset : offset + length].decode("latin-1"), offset + length


def _objects(path: Path | RemotePath) -> CorruptFileError:
    return CorruptFileError(
        f"{path}: holds Python objects, which only running code from the file could load: refused; "
        "save an array of numbers"
    )


def _other_order(path: Path | RemotePath, dtype: Any) -> ValueError:
    return ValueError(
        f"{path}: numbers of the other byte order ({dtype}) cannot be read in place; "
        "save array.astype(array.dtype.newbyteorder('='))"
    )
