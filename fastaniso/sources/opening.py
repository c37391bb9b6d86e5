"""Open stored vectors: a file, a folder of shards, a data set, or several of them as one source."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastaniso.sources.arrow_files import ArrowRows
from fastaniso.sources.datasets import DatasetRows, dataset_files, is_dataset
from fastaniso.sources.errors import CorruptFileError
from fastaniso.sources.locations import RemotePath, as_location
from fastaniso.sources.numpy_files import open_numpy
from fastaniso.sources.parquet_files import ParquetRows
from fastaniso.sources.safetensors_files import open_safetensors
from fastaniso.sources.shards import Shards
from fastaniso.sources.source import Source
from fastaniso.sources.streams import DatasetStream, is_stream
from fastaniso.sources.torch_files import open_torch

_ARRAYS: dict[str, Callable[[Any, str | None], Source]] = {
    ".safetensors": open_safetensors,
    ".pt": open_torch,
    ".pth": open_torch,
}
_TABLES: dict[str, Callable[[Any, str | None], Source]] = {
    ".parquet": ParquetRows,
    ".arrow": ArrowRows,
    ".feather": ArrowRows,
}
_SUFFIXES = (".npy", *_ARRAYS, *_TABLES)
_BY_RANGES = (".npy", ".safetensors", ".parquet")
_AT_ONCE = 16
"""Files elsewhere that are opened at once."""


def open_source(
    path: Any,
    *,
    tensor: str | None = None,
    column: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Source:
    """Open what ``path`` names, without reading its rows; several paths are one source, in their order.

    A file is ``.npy``, ``.safetensors``, ``.pt``, ``.parquet`` or ``.arrow``; a folder holds shards of one of these
    kinds, or is what ``save_to_disk`` of the package datasets wrote; a ``datasets.Dataset`` may be given itself, and so
    may an ``IterableDataset``, whose rows come once. ``[..., d]`` is read as rows of d numbers. ``tensor`` and
    ``column`` name one where a file holds several. A source of your own is handed on.

    What is elsewhere is named by a URL that fsspec opens (``s3://bucket/vectors/``; extra ``remote``), with credentials
    as fsspec finds them, or as ``storage_options`` say, which it is handed and which are written nowhere. ``.npy``,
    ``.safetensors`` and ``.parquet`` are read by ranges of bytes, never kept on disk.

    Raises ``CorruptFileError`` for a damaged file and for one that holds Python objects, ``ValueError`` for a wrong
    name, shape or dtype and for files that do not fit together.
    """
    one = isinstance(path, str | os.PathLike | RemotePath | Source) or is_dataset(path)
    paths = [_located(each, storage_options) for each in ([path] if one else path)]
    if not paths:
        raise ValueError("path: expected at least one file or folder")
    opened = _together(paths, lambda each: _open(each, tensor, column))
    if len(opened) == 1:
        return opened[0]
    for source in opened:
        if source.is_stream:
            raise ValueError(f"path: {source.name} comes as a stream; measure it alone, or interleave the data sets")
    return Shards(", ".join(source.name for source in opened), [part for source in opened for part in source.parts])


def _located(path: Any, storage_options: Mapping[str, Any] | None) -> Any:
    if isinstance(path, str) or (storage_options is not None and isinstance(path, os.PathLike | RemotePath)):
        return as_location(path, storage_options)
    if storage_options is not None:
        raise ValueError(f"storage_options: are for a URL that fsspec opens, got a {type(path).__name__}")
    return path


def _together(paths: Sequence[Any], opening: Callable[[Any], Source]) -> list[Source]:
    """Each opened; of what is elsewhere many at once, because each takes an answer or two over the network."""
    if not all(isinstance(path, RemotePath) and path.serves_many for path in paths):
        return [opening(path) for path in paths]
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="fastaniso-open") as workers:
        return list(workers.map(opening, paths))


def _open(path: Any, tensor: str | None, column: str | None) -> Source:
    if isinstance(path, Source):
        for option, value in (("tensor", tensor), ("column", column)):
            if value is not None:
                raise ValueError(f"{option}: {path.name} is opened already, got {option}={value!r}")
        return path
    if is_dataset(path):
        _refuse("tensor", tensor, "a data set", "column")
        return DatasetStream(path, column) if is_stream(path) else DatasetRows(path, column)
    path = as_location(path)
    if path.is_dir():
        return _open_folder(path, tensor, column)
    if not path.is_file():
        raise FileNotFoundError(f"path: there is no file {str(path)!r}")
    return _open_file(path, tensor, column)


def _open_file(path: Path | RemotePath, tensor: str | None, column: str | None) -> Source:
    suffix = path.suffix.lower()
    if isinstance(path, RemotePath) and suffix in _SUFFIXES and suffix not in _BY_RANGES:
        raise ValueError(
            f"path: {path}: of {suffix} files no ranges are read; save {', '.join(_BY_RANGES)}, or copy it here"
        )
    if suffix == ".npy":
        if tensor is not None:
            raise ValueError(f"tensor: an .npy file holds one array without a name, got tensor={tensor!r}")
        _refuse("column", column, "an .npy file", "no name")
        return open_numpy(path)
    if suffix in _ARRAYS:
        _refuse("column", column, f"a {suffix} file", "tensor")
        return _ARRAYS[suffix](path, tensor)
    if suffix in _TABLES:
        _refuse("tensor", tensor, f"a {suffix} file", "column")
        return _TABLES[suffix](path, column)
    raise ValueError(f"path: expected {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}, got {path.name!r}")


def _refuse(option: str, value: str | None, place: str, instead: str) -> None:
    if value is not None:
        raise ValueError(f"{option}: {place} takes {instead}= instead, got {option}={value!r}")


def _open_folder(folder: Path | RemotePath, tensor: str | None, column: str | None) -> Source:
    files: Sequence[Path | RemotePath] = (
        (isinstance(folder, Path) and dataset_files(folder)) or _indexed(folder, tensor) or _shards(folder)
    )
    for file in files:
        if not file.is_file():
            raise CorruptFileError(f"path: {folder} lacks {file.name}, which its index names")
    parts = _together(files, lambda file: _open_file(file, tensor, column))
    return parts[0] if len(parts) == 1 else Shards(str(folder), parts)


def _shards(folder: Path | RemotePath) -> Sequence[Path | RemotePath]:
    """The files of vectors directly in a folder, in natural order: part 10 after part 9."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file() and p.name[0] not in "._"]
    kinds = sorted({file.suffix.lower() for file in files})
    if not files:
        raise ValueError(f"path: {folder} holds no file of vectors ({', '.join(_SUFFIXES)})")
    if len(kinds) > 1:
        raise ValueError(f"path: {folder} holds files of several kinds ({', '.join(kinds)}); name the files themselves")
    return sorted(files, key=_natural)


def _indexed(folder: Path | RemotePath, tensor: str | None) -> Sequence[Path | RemotePath] | None:
    """The files that ``*.safetensors.index.json`` names, in natural order; of a tensor that it names, its file."""
    entries: list[Path | RemotePath] = list(folder.iterdir())
    indices = [file for file in entries if file.name.endswith(".safetensors.index.json")]
    if not indices:
        return None
    if len(indices) > 1:
        raise ValueError(f"path: {folder} holds {len(indices)} indices of shards; name the files themselves")
    try:
        places: dict[str, str] = json.loads(indices[0].read_text(encoding="utf-8"))["weight_map"]
        files = {name: folder / Path(place).name for name, place in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(f"{indices[0]}: not an index of safetensors shards ({error!r})") from error
    if tensor in files:
        return [files[tensor]]
    return sorted(set(files.values()), key=_natural)


def _natural(path: Path | RemotePath) -> list[int | str]:
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"(\d+)", path.name)]
