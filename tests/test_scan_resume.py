"""A scan that is killed goes on where it was: the bits of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from same_states import same_states

import fastaniso
from fastaniso.scanning import ScanInterrupted, ScanResult, resuming
from fastaniso.state import CorruptStateError


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(tiny.words(9, seed=n) for n in range(60)))
    return path


def scan(text: Path, folder: Path | None = None, seed: int = 0, **options: Any) -> ScanResult:
    torch.manual_seed(seed)
    network = tiny.model("bert")
    options = {"max_length": 16, "batch_size": 3, **options}
    return fastaniso.scan(network, text, tokenizer=tiny.tokenizer(), resume=folder, **options)


def same(ours: ScanResult, theirs: ScanResult) -> bool:
    return ours.tokens == theirs.tokens and same_states(ours.states, theirs.states)


def own_record(folder: Path) -> Path:
    return folder / "scan-under-way" / "run-1" / "rank-0" / "record.json"


class Stop:
    """Told of progress, interrupts after so many batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def __call__(self, progress: Any) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("batches", [1, 2, 7])
def test_an_interrupted_scan_goes_on(text: Path, tmp_path: Path, batches: int) -> None:
    whole = scan(text)
    folder = tmp_path / "run"
    with pytest.raises(ScanInterrupted):
        scan(text, folder, progress=Stop(batches))
    assert json.loads(own_record(folder).read_text())["batches"] == batches
    again = scan(text, folder)
    assert same(again, whole)
    figures = [(a.description.mean_cosine, a.within_sequence) for a in again.sites]
    assert figures == [(a.description.mean_cosine, a.within_sequence) for a in whole.sites]
    # At its end nothing is left, and the next scan begins anew.
    assert not (folder / "scan-under-way").exists()
    assert same(scan(text, folder), whole)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="scans are forked, so that many of them take seconds")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_random_moments(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    whole = scan(text)
    monkeypatch.setattr(resuming, "SECONDS", 0.0)
    monkeypatch.setattr(resuming, "SHARE", 1e9)
    chance, folder, kills, went_on = random.Random(3), tmp_path / "run", 0, 0
    for _ in range(100):
        if kills >= 15 and went_on:
            break
        pid = os.fork()
        if pid == 0:
            try:
                scan(text, folder)
            finally:
                os._exit(0)
        time.sleep(chance.random() * 0.2)
        os.kill(pid, signal.SIGKILL)
        kills += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        went_on += own_record(folder).is_file()
    assert kills >= 15
    assert went_on >= 1
    assert same(scan(text, folder), whole)


def test_another_scan_is_refused(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(ScanInterrupted):
        scan(text, folder, progress=Stop(3))
    with pytest.raises(ValueError, match="holds a scan of other options"):
        scan(text, folder, max_length=12)
    with pytest.raises(ValueError, match="holds a scan of other options"):
        scan(text, folder, gram=False)
    with pytest.raises(ValueError, match="holds a scan of other options, limits"):
        scan(text, folder, max_tokens=50)
    network = tiny.model("bert")
    with torch.no_grad():
        next(network.parameters()).add_(1)
    with pytest.raises(ValueError, match="holds a scan of other model"):
        fastaniso.scan(network, text, tokenizer=tiny.tokenizer(), resume=folder, max_length=16, batch_size=3)
    text.write_text(text.read_text() + " more")
    with pytest.raises(ValueError, match="holds a scan of other data"):
        scan(text, folder)
    for record in own_record(folder), folder / "scan-under-way" / "record.json":
        record.write_text(record.read_text()[:40])
        with pytest.raises(CorruptStateError, match="is damaged"):
            scan(text, folder)


def test_what_is_not_kept_is_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resume: data in memory cannot be told from other data"):
        fastaniso.scan(tiny.model("bert"), ["a b"], tokenizer=tiny.tokenizer(), resume=tmp_path)
