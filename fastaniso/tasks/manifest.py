"""The manifest: which rows are measured, how, and into which tiles that is cut. JSON, checked before it is believed.

It names no place but files under the folder of data that a run is given: a manifest from elsewhere can make nobody read
or write anything outside of it and of the manifest's own folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from fastaniso._version import __version__
from fastaniso.rows import DTYPES
from fastaniso.sources import RemotePath, Source, open_source

NAME = "manifest.json"
FORMAT_VERSION = 1
_KIND = "fastaniso tasks"
_MOST_BYTES = 64 << 20
_MOST_TILES = 10**7
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}


class ManifestError(ValueError):
    """A manifest is damaged, of another format, or of other rows than those at hand."""


@dataclass(frozen=True)
class Tile:
    """One step of the work: block ``row`` alone ("vectors"), or its pairs with block ``other`` (not before it)."""

    stage: str
    row: int
    other: int

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the states it leaves; neighbours of both blocks' rows, where they are two."""
        if self.stage == "vectors":
            return (f"vectors-{self.row}",)
        name = f"{self.stage}-{self.row}-{self.other}"
        both = self.stage == "neighbors" and self.row != self.other
        return (name, f"neighbors-{self.other}-{self.row}") if both else (name,)


@dataclass(frozen=True)
class Manifest:
    """What is measured: files by their names under the folder of data, their rows, and blocks of ``block_rows``.

    ``gram`` as for ``measure``; ``pairs`` the options of all pairs, or None; ``neighbors`` k, or None. ``fingerprint``
    is that of the files when the work was planned.
    """

    files: tuple[str, ...]
    tensor: str | None
    column: str | None
    count: int
    dim: int
    dtype: str
    fingerprint: Any
    block_rows: int
    gram: bool
    pairs: Mapping[str, Any] | None
    neighbors: int | None
    backend: str

    @property
    def name(self) -> str:
        """What states call the rows."""
        return ", ".join(self.files)

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.count // self.block_rows)

    def rows_of(self, block: int) -> tuple[int, int]:
        """First row of a block and the one after its last."""
        return block * self.block_rows, min((block + 1) * self.block_rows, self.count)

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """Every step, in the order in which states are folded: sums have one order, whoever made them."""
        blocks = range(self.blocks)
        stages = [name for name in ("pairs", "neighbors") if getattr(self, name) is not None]
        triangle = [(stage, i, j) for stage in stages for i in blocks for j in blocks[i:]]
        return tuple(Tile(*tile) for tile in [*(("vectors", i, i) for i in blocks), *triangle])

    @property
    def torch_dtype(self) -> torch.dtype:
        """Of the rows."""
        return _DTYPES[self.dtype]

    def write(self, folder: Path) -> None:
        """Write it into a folder that holds no other, by atomic rename."""
        path = folder / NAME
        if path.exists():
            if Manifest.read(folder) == self:
                return
            raise ManifestError(f"{path}: there is a manifest of something else; choose another folder, or delete it")
        (folder / "tiles").mkdir(parents=True, exist_ok=True)
        content = {"kind": _KIND, "format": FORMAT_VERSION, "fastaniso": __version__, **asdict(self)}
        temporary = folder / f".{NAME}.{os.getpid()}"
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Manifest:
        """Read and check what is in the folder."""
        path = Path(folder) / NAME
        if not path.is_file():
            raise ManifestError(f"{folder}: holds no {NAME}; plan one with: fastaniso plan DATA --out {folder}")
        if path.stat().st_size > _MOST_BYTES:
            raise ManifestError(f"{path}: {path.stat().st_size:,} bytes are no manifest")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["kind"] != _KIND or content["format"] != FORMAT_VERSION:
                raise ManifestError(f"{path}: {content['kind']!r} of format {content['format']!r} is no manifest")
            if content["fastaniso"] != __version__:
                raise ManifestError(f"{path}: of fastaniso {content['fastaniso']}, and this is {__version__}")
            manifest = _checked(content)
        except ManifestError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"{path}: damaged ({error!r}); plan it anew") from error
        return manifest

    def open(self, data: Path | RemotePath) -> Source:
        """The rows under ``data``: those that the work was planned for, or an error."""
        root = data.resolve()
        paths = [root / file for file in self.files]
        for file, path in zip(self.files, paths, strict=True):
            if isinstance(path, Path) and not path.resolve().is_relative_to(str(root)):
                raise ManifestError(f"{file}: leads out of {data}; measure it by a copy that lies in it")
            if isinstance(path, Path) and not path.is_file():
                raise ManifestError(f"{data} lacks {file}, which was there when the work was planned")
        try:
            source = open_source(paths, tensor=self.tensor, column=self.column)
        except FileNotFoundError as error:
            raise ManifestError(f"{data} lacks a file that was there when the work was planned ({error})") from error
        # As JSON gives it back, so that what was stored compares equal.
        fingerprint = json.loads(json.dumps(source.fingerprint))
        now, then = (source.count, source.dim, fingerprint), (self.count, self.dim, self.fingerprint)
        if now != then:
            raise ManifestError(f"{data}: its files were changed since the work was planned; plan it anew")
        return source


def _checked(content: Mapping[str, Any]) -> Manifest:
    """A manifest of the right types and of a size that can be meant."""

    def number(name: str, least: int, most: int) -> int:
        value = content[name]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ManifestError(f"manifest: {name} is {value!r}, expected an int from {least} to {most}")
        return value

    def words(name: str) -> str | None:
        value = content[name]
        if value is not None and not isinstance(value, str):
            raise ManifestError(f"manifest: {name} is {value!r}, expected a string or null")
        return value

    files = tuple(content["files"])
    for file in files:
        path = PurePosixPath(file) if isinstance(file, str) else None
        if path is None or path.is_absolute() or ".." in path.parts or "\\" in file or not path.name:
            raise ManifestError(f"manifest: {file!r} is no name of a file under the folder of data")
    if not files or len(set(files)) < len(files):
        raise ManifestError("manifest: expected the names of files, each once")
    if content["dtype"] not in _DTYPES:
        raise ManifestError(f"manifest: dtype is {content['dtype']!r}, expected one of {', '.join(_DTYPES)}")
    if not isinstance(content["gram"], bool) or not isinstance(content["pairs"], dict | None):
        raise ManifestError("manifest: gram is no bool, or pairs no object")
    pairs = content["pairs"]
    manifest = Manifest(
        files=files,
        tensor=words("tensor"),
        column=words("column"),
        count=number("count", 0, 2**48),
        dim=number("dim", 1, 2**24),
        dtype=content["dtype"],
        fingerprint=content["fingerprint"],
        block_rows=number("block_rows", 1, 2**40),
        gram=content["gram"],
        pairs=None if pairs is None else _pair_options(pairs),
        neighbors=None if content["neighbors"] is None else number("neighbors", 1, 128),
        backend=str(content["backend"]),
    )
    if manifest.blocks**2 > _MOST_TILES:
        raise ManifestError(f"manifest: {manifest.blocks:,} blocks are more tiles than can be meant")
    return manifest


def _pair_options(content: Mapping[str, Any]) -> dict[str, Any]:
    bins = content["bins"]
    if isinstance(bins, bool) or not isinstance(bins, int) or not 0 <= bins <= 8192:
        raise ManifestError(f"manifest: bins is {bins!r}, expected an int up to 8192")
    return {
        "bins": bins,
        "thresholds": tuple(float(t) for t in content["thresholds"]),
        "uniformity_t": tuple(float(t) for t in content["uniformity_t"]),
    }
