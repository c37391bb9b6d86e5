"""Files of a kind in folders, in natural order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastaniso.sources.skips import Skips

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".jp2"})
SOUNDS = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au"})


def as_paths(data: object) -> list[Path]:
    """The paths that ``data`` is, one or several; none if it is something else."""
    if isinstance(data, os.PathLike):
        return [Path(data)]
    if isinstance(data, Sequence) and data and all(isinstance(item, os.PathLike) for item in data):
        return [Path(path) for path in data]
    return []


def check_exist(paths: Sequence[Path]) -> None:
    """Raise ``FileNotFoundError`` for a path that is not there."""
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"data: there is no file or folder {str(path)!r}")


def files_under(paths: Sequence[Path]) -> Iterator[Path]:
    """Files given themselves, and all in the folders and their folders; hidden ones are not data."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted((name for name in folders if name[0] != "."), key=natural)
            yield from (Path(folder) / name for name in sorted(names, key=natural) if name[0] != ".")


def files_of(paths: Sequence[Path], suffixes: frozenset[str], skips: Skips) -> Iterator[Path]:
    """The files of a kind; others are counted as skipped."""
    for path in files_under(paths):
        if path.suffix.lower() in suffixes:
            yield path
        else:
            skips.add(f"neither {', '.join(sorted(suffixes))}", str(path))


def size_of(paths: Sequence[Path], suffixes: frozenset[str]) -> int:
    """Bytes of the files of a kind."""
    return sum(path.stat().st_size for path in files_under(paths) if path.suffix.lower() in suffixes)


def natural(name: str) -> list[int | str]:
    """A key that puts part 10 after part 9."""
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"(\d+)", name)]
