"""What a run of an experiment may be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Size(StrEnum):
    """How much is measured: enough to see that it runs, minutes on two cores, or what the paper did on a GPU."""

    smoke = "smoke"
    small = "small"
    full = "full"


def _quiet(line: str) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of all experiments; each takes those that mean something to it.

    Args:
        size: How much is measured.
        out: The folder of the run. An experiment writes under a folder of its own name, and continues what it finds.
        models: A file with the models to measure, one a line.
        text: Files of text.
        images: Folders of images, or files.
        sounds: Folders of sounds, or files.
        checkpoints: Folders of a training's checkpoints, measured in place of a training of our own.
        seeds: How many seeds, by default what the size says.
        device: Where models run: by default a GPU where there is one.
        say: Told a line before whatever takes long.
    """

    size: Size = Size.small
    out: Path = Path("paper-out")
    models: Path | None = None
    text: tuple[Path, ...] = ()
    images: tuple[Path, ...] = ()
    sounds: tuple[Path, ...] = ()
    checkpoints: tuple[Path, ...] = ()
    seeds: int | None = None
    device: str | None = None
    say: Callable[[str], None] = _quiet
