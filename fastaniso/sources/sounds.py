"""Sounds from folders, files and memory: one channel, at the model's rate, in clips of bounded length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastaniso.sources.files import SOUNDS, as_paths, check_exist, files_of, size_of
from fastaniso.sources.skips import Skips

BLOCK_SECONDS = 10
"""Seconds of a file decoded at once."""

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """Samples (n,) of one channel, the name of their recording, its transcript, and the bytes they stand for."""

    name: str
    samples: Samples
    transcript: str | None
    bytes: float


@dataclass(frozen=True)
class Sounds:
    """A source of recordings: its name for the record, its size in bytes if known, and what was left out of it.

    ``entries`` are names and files, or names and (samples, rate). ``changes`` counts the recordings that were changed;
    ``paths`` are the files and folders that they are read from, none in memory.
    """

    name: str
    size: int | None
    identity: str | None
    entries: Iterable[tuple[str, Any]]
    transcribed: bool
    skips: Skips = field(default_factory=Skips)
    changes: Counter[str] = field(default_factory=Counter)
    paths: Sequence[Path] = ()

    def clips(self, *, rate: int, most: int, least: int) -> Iterator[Clip]:
        """Clips of at most ``most`` samples at ``rate``; a longer recording goes on in the next clip.

        Recordings that cannot be read, and clips that are silent, hold NaN or Inf, or are shorter than ``least``
        samples, are skipped and counted.
        """
        for name, entry in self.entries:
            try:
                pieces = self._blocks(entry, rate)
                share = _share(entry, rate)
                transcript = _transcript(entry)
                for samples in _cut(pieces, most):
                    if reason := _useless(samples, least):
                        self.skips.add(reason, name)
                    else:
                        yield Clip(name, samples, transcript, len(samples) * share)
            except _NotReadable as reason:
                self.skips.add(str(reason), name)

    def _blocks(self, entry: Any, rate: int) -> Iterator[Samples]:
        """The recording at ``rate``, block by block: an hour of it is never in memory at once."""
        if not isinstance(entry, Path):
            samples, own = _given(entry)
            self._count_changes(own, rate, samples.shape[1] if samples.ndim == 2 else 1)
            yield from _resampled(iter([_one_channel(samples)]), own, rate)
            return
        soundfile = _import("soundfile")
        try:
            with soundfile.SoundFile(entry) as file:
                self._count_changes(file.samplerate, rate, file.channels)
                blocks = file.blocks(blocksize=BLOCK_SECONDS * file.samplerate, dtype="float32", always_2d=True)
                yield from _resampled(map(_one_channel, blocks), file.samplerate, rate)
        except soundfile.SoundFileError as error:
            raise _NotReadable("unreadable (" + str(error).rpartition(": ")[2].rstrip(".") + ")") from error

    def _count_changes(self, rate: int, wanted: int, channels: int) -> None:
        if rate != wanted:
            self.changes[f"resampled from {rate} to {wanted} Hz"] += 1
        if channels > 1:
            self.changes[f"{channels} channels averaged"] += 1


def as_sounds(data: Any) -> Sounds:
    """A folder, with its folders, or files; or an iterable of (samples, rate), samples (n,) or (n, channels) floats.

    ``NAME.txt`` beside ``NAME.wav`` is its transcript, which the decoder of a model such as Whisper reads.
    """
    paths = as_paths(data)
    if paths:
        check_exist(paths)
        names, skips = ", ".join(str(path) for path in paths), Skips()
        files = list(files_of(paths, SOUNDS | {".txt"}, skips))
        sounds = [path for path in files if path.suffix.lower() in SOUNDS]
        transcribed = any(path.with_suffix(".txt").is_file() for path in sounds)
        entries = ((str(path), path) for path in sounds)
        return Sounds(names, size_of(paths, SOUNDS), names, entries, transcribed, skips, paths=paths)
    entries = ((f"sound {i}", sound) for i, sound in enumerate(data))
    return Sounds("sounds given in memory", None, None, entries, False)


class _NotReadable(ValueError):
    pass


def _given(entry: Any) -> tuple[Any, int]:
    try:
        given, rate = entry
        samples, whole = np.asarray(given), int(rate)
    except (TypeError, ValueError):
        samples, whole, rate = np.empty(0), 0, 0
    if samples.ndim not in (1, 2) or samples.dtype.kind != "f" or not whole == rate > 0:
        raise TypeError(
            "data: expected sounds as (samples, rate), samples (n,) or (n, channels) of floats between −1 and 1, got "
            f"{type(entry).__name__}; a file is given as pathlib.Path(...)"
        )
    return samples, whole


def _one_channel(block: Any) -> Samples:
    """The mean of the channels."""
    mono: Samples = (block.mean(axis=1) if block.ndim == 2 else block).astype(np.float32, copy=False)
    return mono


def _resampled(blocks: Iterator[Samples], rate: int, wanted: int) -> Iterator[Samples]:
    if rate == wanted:
        yield from blocks
        return
    stream = _import("soxr").ResampleStream(rate, wanted, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _cut(blocks: Iterable[Samples], most: int) -> Iterator[Samples]:
    rest, came = np.empty(0, np.float32), False
    for block in blocks:
        rest = np.concatenate((rest, block))
        while len(rest) >= most:
            yield rest[:most]
            rest, came = rest[most:], True
    if len(rest) or not came:
        yield rest


def _useless(samples: Samples, least: int) -> str | None:
    if not len(samples):
        return "empty"
    if not np.isfinite(samples).all():
        return "holds NaN or Inf"
    if samples.min() == samples.max():
        return "silent (all samples are equal)"
    return f"shorter than {least} samples, which make one frame" if len(samples) < least else None


def _share(entry: Any, rate: int) -> float:
    """Bytes of the file that one sample at ``rate`` stands for."""
    if not isinstance(entry, Path):
        return 0.0
    soundfile = _import("soundfile")
    try:
        seconds = float(soundfile.info(entry).duration)
    except soundfile.SoundFileError:
        return 0.0
    return entry.stat().st_size / (seconds * rate) if seconds else 0.0


def _transcript(entry: Any) -> str | None:
    if not isinstance(entry, Path) or not entry.with_suffix(".txt").is_file():
        return None
    return entry.with_suffix(".txt").read_text(encoding="utf-8").strip() or None


def _import(name: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"reading sounds needs the package {name}, which is not installed: pip install 'fastaniso[audio]'",
            name=name,
        ) from error
