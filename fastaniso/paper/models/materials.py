"""What models read: the run's texts, images and sounds, or what is installed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastaniso.paper.models.list_file import Entry
from fastaniso.paper.options import Options

SPEECH = {
    "LibriVox clips of Debian's pocketsphinx-testdata": "/usr/share/pocketsphinx/test/data/librivox",
    "telephone prompts of Debian's asterisk-core-sounds-en-wav": "/usr/share/asterisk/sounds/en_US_f_Allison",
}
"""Recordings of speech where Debian's packages have them."""

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
"""Photographs that scikit-image ships in its folder ``data``."""

PARTS = ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1))
"""Where crops lie in a photograph, of three by two."""

_SAMPLE = 1 << 20


class NothingToRead(LookupError):
    """There are no data of the kind that a model reads."""


@dataclass(frozen=True)
class Material:
    """Data for ``fastaniso.scan``, what a record calls them, and what changes when their files do.

    ``sample`` gives the beginning of a text, which a tokenizer is made of.
    """

    data: Any
    said: str
    stamp: Any
    sample: Callable[[], str] = str


def material(kind: str, entry: Entry, options: Options) -> Material:
    """What a model reads: the line's own data, else the run's, else what is at hand."""
    if entry.lines is not None:
        return _lines(entry.found(entry.lines), entry.lines)
    own = (entry.found(entry.data),) if entry.data is not None else ()
    if kind == "text":
        return _text(own or options.text)
    return _images(own or options.images) if kind == "images" else _sounds(own or options.sounds)


def _lines(file: Path, said: str) -> Material:
    if not file.is_file():
        raise NothingToRead(f"lines: there is no file {said}")
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return Material(lines, f"{file.name}, {len(lines):,} lines", _stamp([file]), lambda: "\n".join(lines)[:_SAMPLE])


def _text(files: Sequence[Path]) -> Material:
    if not files:
        raise NothingToRead("there is no text; give --text FILE")
    _check(files)

    def sample() -> str:
        with files[0].open(encoding="utf-8") as file:
            return file.read(_SAMPLE)

    return Material(list(files), _names(files), _stamp(files), sample)


def _images(places: Sequence[Path]) -> Material:
    if places:
        _check(places)
        return Material(list(places), _names(places), _stamp(places))
    photos, said = _photos()
    if not photos:
        raise NothingToRead("there are no images; give --images DIR, or pip install scikit-learn for its photographs")
    parts = [part for photo in photos for part in (photo, *_crops(photo))]
    return Material(parts, f"{said}, whole and in {len(PARTS)} crops each", said)


def _sounds(places: Sequence[Path]) -> Material:
    if places:
        _check(places)
        return Material(list(places), _names(places), _stamp(places))
    for said, place in SPEECH.items():
        recordings = sorted(Path(place).glob("*.wav"))
        if recordings:
            return Material(recordings, said, _stamp(recordings))
    raise NothingToRead("there are no sounds; give --sounds DIR, or apt-get install pocketsphinx-testdata")


@cache
def _photos() -> tuple[list[Any], str]:
    found, said = [], []
    if find_spec("sklearn") is not None:
        from sklearn.datasets import load_sample_images

        found += list(load_sample_images().images)
        said.append(f"{len(found)} photographs of scikit-learn")
    spec = find_spec("skimage")
    if spec is not None and spec.submodule_search_locations and find_spec("PIL") is not None:
        import numpy as np
        from PIL import Image

        files = [Path(spec.submodule_search_locations[0]) / "data" / name for name in PHOTOS]
        shipped = [file for file in files if file.is_file()]
        found += [np.asarray(Image.open(file).convert("RGB")) for file in shipped]
        said += [f"{len(shipped)} of scikit-image"] if shipped else []
    return found, " and ".join(said)


def _crops(photo: Any) -> list[Any]:
    """Pieces that do not overlap."""
    height, width = photo.shape[0] // 2, photo.shape[1] // 3
    return [photo[height * row : height * (row + 1), width * column : width * (column + 1)] for column, row in PARTS]


def _check(places: Sequence[Path]) -> None:
    for place in places:
        if not place.exists():
            raise NothingToRead(f"data: there is no {str(place)!r}")


def _names(places: Sequence[Path]) -> str:
    return ", ".join(place.name for place in places)


def _stamp(places: Sequence[Path]) -> list[list[Any]]:
    """Names, sizes and times of all files."""
    files = [file for place in places for file in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()]
