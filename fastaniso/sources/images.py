"""Images from folders, files and memory, as RGB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from fastaniso.sources.files import IMAGES, as_paths, check_exist, files_of, size_of
from fastaniso.sources.skips import Skips

_EIGHT_BITS = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"})


@dataclass(frozen=True)
class Image:
    """An RGB image of Pillow, its name for messages, and the bytes of its file (0 in memory)."""

    name: str
    picture: Any
    bytes: int


@dataclass(frozen=True)
class Images:
    """A source of images: its name for the record, its size in bytes if known, and what was left out of it.

    ``paths`` are the files and folders that it is read from, none in memory.
    """

    name: str
    size: int | None
    identity: str | None
    entries: Iterable[tuple[str, Any]]
    skips: Skips = field(default_factory=Skips)
    paths: Sequence[Path] = ()

    def __iter__(self) -> Iterator[Image]:
        """The images in order, decoded one by one; what cannot be read is skipped and counted."""
        pillow = import_pillow()
        for name, entry in self.entries:
            try:
                picture = _rgb(pillow, entry)
            except _NotReadable as reason:
                self.skips.add(str(reason), name)
                continue
            yield Image(name, picture, entry.stat().st_size if isinstance(entry, Path) else 0)


def as_images(data: Any) -> Images:
    """A folder, with its folders, or files; or an iterable of Pillow's images or uint8 arrays (height, width[, 3])."""
    paths = as_paths(data)
    if paths:
        check_exist(paths)
        names, skips = ", ".join(str(path) for path in paths), Skips()
        entries = ((str(path), path) for path in files_of(paths, IMAGES, skips))
        return Images(names, size_of(paths, IMAGES), names, entries, skips, paths)
    return Images("images given in memory", None, None, ((f"image {i}", image) for i, image in enumerate(data)))


def import_pillow() -> ModuleType:
    """The package Pillow."""
    try:
        import PIL.Image
        import PIL.ImageOps
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading images needs the package pillow, which is not installed: pip install 'fastaniso[images]'",
            name="PIL",
        ) from error
    return PIL


class _NotReadable(ValueError):
    pass


def _rgb(pillow: ModuleType, entry: Any) -> Any:
    """The image as it is meant to be seen (turned as its camera noted), in RGB: grey becomes three equal channels."""
    try:
        if isinstance(entry, Path):
            with entry.open("rb") as file:
                return _converted(pillow, pillow.Image.open(file))
        given = isinstance(entry, pillow.Image.Image)
        return _converted(pillow, entry if given else _from_array(pillow, entry))
    except (OSError, SyntaxError, ValueError, pillow.Image.DecompressionBombError) as error:
        if isinstance(error, _NotReadable):
            raise
        raise _NotReadable(f"unreadable ({type(error).__name__})") from error


def _converted(pillow: ModuleType, picture: Any) -> Any:
    if picture.mode not in _EIGHT_BITS:
        # Conversion would cut 16 bits off at 255, which shows as white.
        raise _NotReadable(f"mode {picture.mode}, not eight bits a channel")
    return pillow.ImageOps.exif_transpose(picture).convert("RGB")


def _from_array(pillow: ModuleType, entry: Any) -> Any:
    array = entry.numpy() if hasattr(entry, "numpy") else entry
    if str(getattr(array, "dtype", "")) != "uint8" or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise TypeError(
            "data: expected images of Pillow or uint8 arrays (height, width) or (height, width, 3), got "
            f"{type(entry).__name__} of {getattr(array, 'dtype', 'no dtype')} {tuple(getattr(array, 'shape', ()))}; "
            "tensors ready for the model are given as batches: dict(pixel_values=...)"
        )
    return pillow.Image.fromarray(array)
