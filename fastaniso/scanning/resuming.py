"""A scan under way, kept in a folder: after a kill it goes on behind the batches that were last kept.

``record.json`` says of what scan, and which run by how many ranks is under way; ``run-1/rank-0`` and so on hold what
each rank has read. A run by as many ranks as the last goes on with what those kept. Another number of ranks begins a
run of its own: it leaves what is there as it is, reads the batches that nobody had kept, and adds the others' states
at its end.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fastaniso._version import __version__
from fastaniso.scanning.checkpoint import SECONDS, SHARE
from fastaniso.scanning.dealing import Deal
from fastaniso.scanning.part import Part
from fastaniso.scanning.readers import Readers
from fastaniso.state import CorruptStateError, StateMismatchError

UNDER_WAY = "scan-under-way"
FORMAT_VERSION = 2


class ScanCheckpoint:
    """What one of ``size`` ranks has read, in ``folder``, and of what scan: ``identity``, all that figures depend on.

    Every rank makes one, on a folder that all of them see: the first calls ``begin``, and then all ``look``.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], rank: int, size: int) -> None:
        """Nothing is read or written yet."""
        self._folder = folder / UNDER_WAY
        self._identity = json.loads(json.dumps({**identity, "fastaniso": __version__}))
        self._rank, self._size = rank, size
        self._at, self._pause = time.monotonic(), SECONDS
        self._kept = 0

    def begin(self) -> None:
        """Find the run to go on with, or begin one; ``ValueError`` if the folder holds what another scan has kept."""
        if not self._record.is_file():
            self._begin_anew()
            return
        content = self._read()
        before, size = _runs(content), int(content["ranks"])
        last = tuple(_batches(self._place(len(before) + 1, rank)) for rank in range(size))
        if not any(map(sum, (*before, last))):
            self._begin_anew()  # nothing is lost, whatever it was of
            return
        self._check(content)
        self._write(before if size == self._size else (*before, last))

    def look(self) -> Deal:
        """What this rank is to read; ``ValueError`` if the folder is of another scan, or not the one of all ranks."""
        if not self._record.is_file():
            raise ValueError(f"resume: {self._record} is not seen here: all ranks need one folder")
        content = self._read()
        self._check(content)
        self._before, self._process = _runs(content), str(content["process"])
        return Deal(self._rank, self._size, self._before)

    def take_up(self, readers: Readers, device: torch.device) -> None:
        """Give ``readers``, which are empty, what this rank had kept, on ``device``; what they read will be kept."""
        self._readers, self._device = readers, device
        self._own = Part(self._place(len(self._before) + 1, self._rank))
        if record := self._own.record():
            readers.take_up(record, self._own.states(record, device))
            self._kept = readers.hidden.batches

    def keep(self) -> None:
        """After a batch: write, if the last time is long ago."""
        if time.monotonic() - self._at > self._pause:
            self.save()

    def save(self) -> None:
        """Write everything."""
        began = time.monotonic()
        if not self._is_last:
            raise ValueError(
                f"resume: the same scan has begun anew, or has ended, in {self._folder}: one at a time goes on in a "
                "folder, that which began last"
            )
        self._own.write(self._readers.states, self._readers.record())
        self._kept = self._readers.hidden.batches
        self._at = time.monotonic()
        # Large states are kept more rarely.
        self._pause = max(SECONDS, (self._at - began) / SHARE)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever ends the body early, whole batches are kept."""
        try:
            yield
        except BaseException:
            if self._readers.is_resumable and self._readers.hidden.batches > self._kept:
                self.save()
            raise

    def add_earlier_runs(self) -> None:
        """Add to the readers what the ranks of earlier runs had read: this rank's share of them."""
        parts = [
            (self._place(run, rank), count)
            for run, counts in enumerate(self._before, 1)
            for rank, count in enumerate(counts)
            if count
        ]
        for folder, count in parts[self._rank :: self._size]:
            part = Part(folder)
            record = part.record()
            if record is None or record["batches"] != count:
                raise StateMismatchError(
                    f"resume: {folder} is not as it was when this run began: another run of the scan goes on in it; "
                    f"end that one, delete {self._folder}, and start anew"
                )
            self._readers.add(record, part.states(record, self._device))

    def remove(self) -> None:
        """At the end of the scan: nothing is left in the folder, unless somebody else goes on in it."""
        if not self._is_last:
            return
        self._record.unlink(missing_ok=True)  # first, so that nobody goes on with half of the rest
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _record(self) -> Path:
        return self._folder / "record.json"

    @property
    def _is_last(self) -> bool:
        """Whether nobody has begun in the folder since."""
        return self._record.is_file() and self._read()["process"] == self._process

    def _place(self, run: int, rank: int) -> Path:
        return self._folder / f"run-{run}" / f"rank-{rank}"

    def _begin_anew(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._write(())

    def _write(self, before: tuple[tuple[int, ...], ...]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {"kind": UNDER_WAY, "format": FORMAT_VERSION, "before": before, "ranks": self._size}
        content["process"] = uuid.uuid4().hex  # of who begins here last
        temporary = self._folder / f".record.{os.getpid()}"
        temporary.write_text(json.dumps({**content, "identity": self._identity}, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, self._record)

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self._record.read_text(encoding="utf-8"))
            if content["kind"] != UNDER_WAY or content["format"] != FORMAT_VERSION:
                raise ValueError(f"of format {content['format']}, and not {FORMAT_VERSION}")
            _ = content["identity"].items(), _runs(content), int(content["ranks"]), content["process"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptStateError(f"resume: {self._record} is damaged ({error!r}); delete {self._folder}") from error
        return content

    def _check(self, content: Mapping[str, Any]) -> None:
        known = content["identity"]
        if different := [name for name in self._identity if known.get(name) != self._identity[name]]:
            raise ValueError(
                f"resume: {self._folder} holds a scan of other {', '.join(different)}; choose another folder, or "
                "delete this one to start anew"
            )


def is_kept(folder: Path) -> bool:
    """Whether a scan is under way in the folder of its results, with something to go on from."""
    return any((folder / UNDER_WAY).glob("run-*/rank-*/record.json"))


def _runs(content: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(count) for count in counts) for counts in content["before"])


def _batches(folder: Path) -> int:
    record = Part(folder).record()
    return int(record["batches"]) if record else 0
