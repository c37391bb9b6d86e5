"""``.safetensors``: named arrays behind a JSON header that says where each of them lies."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from fastaniso.sources.errors import CorruptFileError
from fastaniso.sources.locations import RemotePath
from fastaniso.sources.mapped import MappedRows
from fastaniso.sources.ranges import RangeRows
from fastaniso.sources.source import Source, choose, float_dtype

LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def open_safetensors(path: Path | RemotePath, tensor: str | None) -> Source:
    """Map the tensor called ``tensor``, or the only one.

    The header is read here and not by the library, which asks the system for as much memory as the file is long.
    """
    entries, begin = _header(path)
    name = choose(str(path), "tensor", list(entries), tensor)
    entry = entries[name]
    dtype = float_dtype(f"{path}:{name}", _DTYPES.get(entry["dtype"], entry["dtype"]))
    shape, offset = tuple(entry["shape"]), begin + entry["data_offsets"][0]
    if isinstance(path, RemotePath):
        return RangeRows(path, dtype, shape, offset, tensor=name)
    return MappedRows(path, dtype, shape, offset, tensor=name)


def _header(path: Path | RemotePath) -> tuple[dict[str, Any], int]:
    """Every tensor's dtype, shape and offsets, and the byte that offsets count from."""
    size = path.size if isinstance(path, RemotePath) else path.stat().st_size
    length = int.from_bytes(_read(path, 0, 8), "little") if size >= 8 else -1
    if not 0 <= length <= min(size - 8, LONGEST_HEADER):
        raise CorruptFileError(f"{path}: cannot be read as safetensors: its header is cut short or none")
    try:
        content = json.loads(_read(path, 8, length))
    except ValueError as error:
        raise CorruptFileError(f"{path}: cannot be read as safetensors: the header is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise CorruptFileError(f"{path}: cannot be read as safetensors: the header is no JSON object")
    content.pop("__metadata__", None)
    for name, entry in content.items():
        if not _is_sound(entry, size - 8 - length):
            raise CorruptFileError(
                f"{path}: cannot be read as safetensors: the header's entry of {name!r} does not fit the file, which "
                "may be cut short"
            )
    return content, 8 + length


def _read(path: Path | RemotePath, start: int, length: int) -> bytes:
    if isinstance(path, RemotePath):
        return path.read(start, length)
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def _is_sound(entry: Any, size: int) -> bool:
    try:
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        counts = [*shape, begin, end]
        whole = all(type(count) is int and count >= 0 for count in counts) and begin <= end <= size
        dtype = _DTYPES.get(entry["dtype"])
        return whole and (dtype is None or math.prod(shape) * dtype.itemsize == end - begin)
    except (KeyError, TypeError, ValueError):
        return False
