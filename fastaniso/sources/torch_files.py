"""``.pt``: a tensor or a dict of tensors as ``torch.save`` writes them, found in the file and left there.

``torch.load(mmap=True)`` asks the system for as much memory as the file is long, so it cannot open one larger than
memory. Here an unpickler reads the pickled part that knows the few names a tensor is made of and nothing else, and
keeps of each tensor only where its numbers are.
"""

from __future__ import annotations

import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fastaniso.sources.errors import CorruptFileError
from fastaniso.sources.mapped import MappedRows
from fastaniso.sources.source import choose, float_dtype

_HEADER = struct.Struct("<26sHH")
"""Of a record in a zip archive: what is of no use here, and the lengths of its name and of its extra field."""

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
}


class _Storage(NamedTuple):
    """A record of the archive; ``dtype`` is its name where no rows can be of it."""

    key: str
    dtype: torch.dtype | str


class _Tensor(NamedTuple):
    """Where a tensor is. A tuple, whose values no later instruction of the file can change."""

    storage: _Storage
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def open_torch(path: Path, tensor: str | None) -> MappedRows:
    """Map the tensor that the file holds, or of a dict the one called ``tensor``, or the only one. Runs no code."""
    content, records = _read(path)
    name, found = _choose(path, content, tensor)
    place = str(path) if name is None else f"{path}:{name}"
    dtype = float_dtype(place, found.storage.dtype)
    record = records.get(f"data/{found.storage.key}")
    numbers = found.first + sum((n - 1) * s for n, s in zip(found.shape, found.strides, strict=True)) + 1
    if record is None or (0 not in found.shape and record.file_size < numbers * dtype.itemsize):
        raise CorruptFileError(f"{place}: its numbers are not in the file")
    if record.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{path}: a compressed archive cannot be read in place; save it with torch.save")
    offset = _begin(path, record) + found.first * dtype.itemsize
    return MappedRows(path, dtype, found.shape, offset, tensor=name, strides=found.strides)


def _choose(path: Path, content: Any, tensor: str | None) -> tuple[str | None, _Tensor]:
    if isinstance(content, _Tensor):
        if tensor is not None:
            raise ValueError(f"tensor: {path} holds one tensor without a name, got tensor={tensor!r}")
        return None, content
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a tensor or a dict of tensors, got {type(content).__name__}")
    named = {str(key): value for key, value in content.items() if isinstance(value, _Tensor)}
    name = choose(str(path), "tensor", list(named), tensor)
    return name, named[name]


def _read(path: Path) -> tuple[Any, dict[str, zipfile.ZipInfo]]:
    """What was pickled, with places instead of tensors, and the archive's records by name."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            order = archive.read(records["byteorder"]).decode() if "byteorder" in records else "little"
            with archive.open(records["data.pkl"]) as file:
                content = _Unpickler(file).load()
    except pickle.UnpicklingError as error:
        raise CorruptFileError(f"{path}: {error}") from error
    except Exception as error:
        # Damaged bytes can make an unpickler raise anything.
        raise CorruptFileError(
            f"{path}: cannot be read as what torch.save writes since PyTorch 1.6: cut short, damaged, or of another "
            f"format ({type(error).__name__}: {error})"
        ) from error
    if order != sys.byteorder:
        raise ValueError(f"{path}: numbers of the other byte order ({order}-endian) cannot be read in place")
    return content, records


def _begin(path: Path, record: zipfile.ZipInfo) -> int:
    """The byte where a record's content begins: after its header and two fields whose lengths the header gives."""
    with path.open("rb") as file:
        file.seek(record.header_offset)
        header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(b"PK\3\4"):
        raise CorruptFileError(f"{path}: the record {record.filename} is not where the archive says")
    _, name, extra = _HEADER.unpack(header)
    return record.header_offset + _HEADER.size + int(name) + int(extra)


class _Unpickler(pickle.Unpickler):
    """Knows the names below; every other is refused, so that nothing from the file can run."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name."""
        if module == "torch" and name.endswith("Storage"):
            return _STORAGES.get(name, name)
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return name
        raise pickle.UnpicklingError(
            f"holds Python objects besides tensors ({module}.{name}), which only running code from the file could "
            "load: refused; save the tensors alone"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """A tensor's storage: ("storage", its type, the record's name, device, numbers)."""
        _, dtype, key, _, _ = pid
        return _Storage(str(key), dtype)


def _tensor(storage: _Storage, first: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    counts = (first, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("a tensor of no sound shape")
    return _Tensor(storage, first, tuple(shape), tuple(strides))


def _typed_tensor(storage: _Storage, first: int, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    """Of the dtypes that have no storage type of their own; rows are of none of them."""
    _, _, dtype, *_ = rest
    return _tensor(_Storage(storage.key, str(dtype)), first, shape, strides)


def _parameter(data: _Tensor, *_: Any) -> _Tensor:
    return data


def _nothing(*_: Any) -> None:
    """What may stand beside tensors and is not looked at."""


_KNOWN: dict[tuple[str, str], Callable[..., Any] | str] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "UntypedStorage"): "bytes",
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): _nothing,
    ("torch", "device"): _nothing,
    ("builtins", "set"): _nothing,
    ("__builtin__", "set"): _nothing,
    ("builtins", "complex"): _nothing,
    ("__builtin__", "complex"): _nothing,
}
