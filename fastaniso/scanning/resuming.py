"""A scan under way, kept in a folder: after a kill it goes on behind the batch that was last kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastaniso._version import __version__
from fastaniso.scanning.checkpoint import SECONDS, SHARE
from fastaniso.scanning.reader import Reader
from fastaniso.sources.source import file_fingerprint
from fastaniso.state import CorruptStateError, load_state, save_state

UNDER_WAY = "scan-under-way"
FORMAT_VERSION = 1
_NUMBERS = 64


class ScanCheckpoint:
    """What ``reader`` has read, in ``folder``, and of what scan: ``identity``, anything that its figures depend on.

    Each time it is kept in a folder of its own, and a short file, replaced by atomic rename, says which counts: a scan
    that is killed while it writes goes on from the time before.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], reader: Reader, device: torch.device) -> None:
        """Take up what is in the folder, on ``device``; ``ValueError`` if it is of another scan."""
        self._folder = folder / UNDER_WAY
        self._identity = json.loads(json.dumps({**identity, "fastaniso": __version__}))
        self._reader = reader
        self._at, self._pause = time.monotonic(), SECONDS
        if self._record.is_file():
            self._take_up(device)

    @property
    def _record(self) -> Path:
        return self._folder / "record.json"

    def keep(self) -> None:
        """After a batch: write, if the last time is long ago."""
        if time.monotonic() - self._at > self._pause:
            self.save()

    def save(self) -> None:
        """Write everything."""
        began = time.monotonic()
        place = f"after-{self._reader.batches}"
        (self._folder / place).mkdir(parents=True, exist_ok=True)
        for name, state in self._reader.states().items():
            save_state(state, self._folder / place / f"{name}.safetensors")
        record = {"kind": UNDER_WAY, "format": FORMAT_VERSION, "states": place, **self._reader.record()}
        temporary = self._folder / f".record.{os.getpid()}"
        temporary.write_text(json.dumps({**record, "identity": self._identity}, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, self._record)
        self._drop_all_but(place)
        self._at = time.monotonic()
        # Large states are kept more rarely.
        self._pause = max(SECONDS, (self._at - began) / SHARE)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever ends the body early, whole batches are kept; at its end nothing is left in the folder."""
        try:
            yield
        except BaseException:
            if self._reader.batches and self._reader.is_between_batches:
                self.save()
            raise
        shutil.rmtree(self._folder, ignore_errors=True)

    def _take_up(self, device: torch.device) -> None:
        try:
            content = json.loads(self._record.read_text(encoding="utf-8"))
            sound = content["kind"] == UNDER_WAY and content["format"] == FORMAT_VERSION
            known, place = content["identity"], Path(content["states"]).name
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptStateError(f"resume: {self._record} is damaged ({error!r}); delete {self._folder}") from error
        different = [name for name in self._identity if not sound or known.get(name) != self._identity[name]]
        if different:
            raise ValueError(
                f"resume: {self._folder} holds a scan of other {', '.join(different)}; choose another folder, or "
                "delete this one to start anew"
            )
        files = sorted((self._folder / place).glob("[!.]*.safetensors"))
        states = {path.name.removesuffix(".safetensors"): load_state(path).to(device) for path in files}
        self._reader.take_up(content, states)
        self._drop_all_but(place)

    def _drop_all_but(self, place: str) -> None:
        for old in self._folder.glob("after-*"):
            if old.name != place:
                shutil.rmtree(old, ignore_errors=True)


def fingerprint_of_data(data: Any) -> list[Any]:
    """Names, sizes and times of files; ``ValueError`` for data in memory, which nothing tells from other data."""
    paths = [data] if isinstance(data, os.PathLike) else data
    if not isinstance(paths, list | tuple) or not all(isinstance(path, os.PathLike) for path in paths):
        raise ValueError("resume: data in memory cannot be told from other data; pass paths, or leave resume out")
    files = [file for path in map(Path, paths) for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return [file_fingerprint(file) for file in files if file.is_file()]


def fingerprint_of_weights(network: nn.Module) -> str:
    """A digest of the first numbers of each parameter, so that another checkpoint of one model is another."""
    digest = hashlib.sha256()
    for name, parameter in network.named_parameters():
        first = parameter.detach().flatten()[:_NUMBERS].to("cpu", torch.float64)
        digest.update(name.encode())
        digest.update(first.numpy().tobytes())
    return digest.hexdigest()
