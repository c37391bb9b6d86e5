"""Where stored vectors lie: a path here, or a URL that fsspec opens (``s3://``, ``gs://``, ``hf://``, ``https://``)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

_LONGEST_TEXT = 64 << 20
"""Bytes of an index that are read at once."""

_VERSIONS = ("ETag", "etag", "checksum", "md5Hash", "content_md5", "Content-MD5", "Digest", "generation", "blob_id")
_TIMES = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "created")


class RemotePath:
    """A file or folder of a file system of fsspec, with what is used here of ``pathlib.Path``.

    Files are read by ranges of bytes; none is ever kept on disk. What the file system tells of it is asked for once.
    """

    def __init__(self, system: Any, path: str, kind: str | None = None) -> None:
        """``path`` as ``system`` has it, without the protocol; ``kind`` is "file" or "directory" where it is known."""
        self._system = system
        self._path = path.rstrip("/") or path
        self._over_http = path.startswith(("http://", "https://"))
        # Over HTTP everything is a file; a slash at the end says that one means a page of links.
        self._known_kind = "directory" if self._over_http and path.endswith("/") else kind

    def __str__(self) -> str:
        """The URL, without a password or a signature that may be in it: it is written into results."""
        url = str(self._system.unstrip_protocol(self._path))
        if self._over_http:
            url = url.partition("?")[0]
        return re.sub(r"//[^/@]*@", "//", url)

    def __eq__(self, other: object) -> bool:
        """Whether both are one file."""
        return isinstance(other, RemotePath) and (self._path, self._system) == (other._path, other._system)

    def __hash__(self) -> int:
        """As for ``==``."""
        return hash((self._path, self._system))

    def __truediv__(self, name: str) -> RemotePath:
        """The file ``name``, with ``/`` between its parts, in this folder: never one outside of it."""
        if ".." in PurePosixPath(name).parts or (self._over_http and re.search(r"[?#%\\]", name)):
            raise ValueError(f"path: {name!r} is no plain name of a file in {self}")
        return RemotePath(self._system, f"{self._path}/{name}")

    @property
    def name(self) -> str:
        """Behind the last slash."""
        return str(self).rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """Of the name."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        """The folder it lies in."""
        return RemotePath(self._system, self._path.rpartition("/")[0] + "/")

    def resolve(self) -> RemotePath:
        """Itself."""
        return self

    def relative_to(self, folder: RemotePath) -> PurePosixPath:
        """What is behind ``folder``."""
        return PurePosixPath(self._path).relative_to(folder._path)

    @cached_property
    def _info(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._system.info(self._path)
        except FileNotFoundError:
            return None
        return found

    @property
    def _kind(self) -> str | None:
        if self._known_kind is None and self._info is not None:
            return "directory" if self._info.get("type") == "directory" else "file"
        return self._known_kind

    def is_dir(self) -> bool:
        """Whether it is a folder, or what begins with this name where there are no folders."""
        return self._kind == "directory"

    def is_file(self) -> bool:
        """Whether there is a file of this name."""
        return self._kind == "file"

    def iterdir(self) -> Iterator[RemotePath]:
        """What is directly in a folder."""
        for entry in self._system.ls(self._path, detail=True):
            path = str(entry["name"]).rstrip("/")
            # A page links to wherever it likes.
            if path.startswith(f"{self._path}/"):
                # Of sizes and versions a listing may tell less than the file itself, or in other words.
                yield RemotePath(self._system, path, "directory" if entry.get("type") == "directory" else "file")

    @property
    def serves_many(self) -> bool:
        """Whether several threads may ask at once."""
        return bool(self._system.async_impl)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        told = None if self._info is None else self._info.get("size")
        if not isinstance(told, int):
            raise OSError(f"path: {self}: where it lies does not tell its size, without which it cannot be checked")
        return told

    @property
    def fingerprint(self) -> list[Any]:
        """Name, size, and what tells of a change: a checksum or version, else a time; None where nothing does."""
        info = self._info or {}
        known = (info.get(key) for key in (*_VERSIONS, *_TIMES))
        return [self.name, self.size, next((str(value) for value in known if value is not None), None)]

    def read(self, start: int, length: int) -> bytes:
        """Bytes from ``start``; fewer where the file ends."""
        return bytes(self._system.cat_file(self._path, start=start, end=start + length)) if length else b""

    def read_several(self, edges: list[tuple[int, int]]) -> list[bytes]:
        """Several ranges, start and end of each: together where the file system can."""
        starts, ends = zip(*edges, strict=True)
        found = self._system.cat_ranges([self._path] * len(edges), list(starts), list(ends), on_error="raise")
        return [bytes(piece) for piece in found]

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole of a small file."""
        if self.size > _LONGEST_TEXT:
            raise ValueError(f"path: {self}: {self.size:,} bytes are no index of files")
        return self.read(0, self.size).decode(encoding)

    def open(self) -> Any:
        """A file that reads exactly the ranges it is asked for."""
        return self._system.open(self._path, "rb", cache_type="none")


def as_location(
    path: str | os.PathLike[str] | RemotePath, storage_options: Mapping[str, Any] | None = None
) -> Path | RemotePath:
    """A path of this machine (``file://`` too), or, for any other URL, what fsspec has there now.

    ``storage_options`` are for the URL's file system, as fsspec takes them. They may hold secrets: nothing but the file
    system itself keeps them, and no error tells their values.
    """
    here = not isinstance(path, str) or "://" not in path or (path.startswith("file://") and "::" not in path)
    if storage_options is not None:
        if not isinstance(storage_options, Mapping):
            raise TypeError(f"storage_options: expected a dict, got {type(storage_options).__name__}")
        if here:
            what = (
                "an opened location" if isinstance(path, RemotePath) else f"{os.fspath(path)!r}, a path of this machine"
            )
            raise ValueError(f"storage_options: are for a URL that fsspec opens, got {what}; leave them out")
    if isinstance(path, RemotePath):
        return path
    if here:
        return Path(os.fspath(path).removeprefix("file://"))
    assert isinstance(path, str)
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"path: {_plain(path)} needs fsspec: pip install 'fastaniso[remote]'") from error
    try:
        system, inner = url_to_fs(path, **(storage_options or {}))
    except ImportError as error:
        raise ModuleNotFoundError(f"path: {_plain(path)} needs a package more: {error}") from error
    except ValueError as error:
        raise ValueError(f"path: {_plain(path)}: {error}") from error
    # File systems remember their listings for as long as the process lives, and files change.
    system.invalidate_cache()
    return RemotePath(system, inner)


def name_under(folder: Path | RemotePath, path: Path | RemotePath) -> str:
    """What a file in ``folder`` is called from there; ``ValueError`` for a name that cannot be given again."""
    if isinstance(folder, RemotePath) and isinstance(path, RemotePath):
        name = path.relative_to(folder).as_posix()
        return (folder / name).relative_to(folder).as_posix()
    return Path(str(path)).resolve().relative_to(Path(str(folder)).resolve()).as_posix()


def _plain(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])
