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
import tiny_senses
import torch
from same_states import same_states
from typer.testing import CliRunner

import fastaniso
from fastaniso.cli.commands import app
from fastaniso.scanning import Progress, ScanInterrupted, ScanResult, ScanStoppedError, resuming
from fastaniso.scanning.dealing import Turn
from fastaniso.scanning.readers import Readers
from fastaniso.sources import files_as
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
    heads = [{} if result.attention is None else result.attention.states for result in (ours, theirs)]
    return ours.tokens == theirs.tokens and same_states(ours.states, theirs.states) and same_states(*heads)


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


@pytest.mark.parametrize(("batches", "attention"), [(1, False), (2, True), (7, False)])
def test_an_interrupted_scan_goes_on(text: Path, tmp_path: Path, batches: int, attention: bool) -> None:
    whole = scan(text, attention=attention)
    folder = tmp_path / "run"
    with pytest.raises(ScanInterrupted):
        scan(text, folder, progress=Stop(batches), attention=attention)
    assert json.loads(own_record(folder).read_text())["batches"] == batches
    told: list[Progress] = []
    again = scan(text, folder, attention=attention, progress=told.append)
    assert same(again, whole)
    assert len(told) == whole.tokens.batches - batches
    assert told[-1].done == whole.tokens.kept
    figures = [(a.description.mean_cosine, a.within_sequence) for a in again.sites]
    assert figures == [(a.description.mean_cosine, a.within_sequence) for a in whole.sites]
    # At its end nothing is left, and the next scan begins anew.
    assert not (folder / "scan-under-way").exists()
    assert same(scan(text, folder, attention=attention), whole)


def test_what_is_kept_stays_until_the_result_is_written(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    with pytest.raises(ScanInterrupted):
        scan(text, tmp_path, progress=Stop(2))
    with monkeypatch.context() as patch:
        patch.setattr(ScanResult, "save", full)
        with pytest.raises(OSError, match="no space left"):
            scan(text, tmp_path)
    assert json.loads(own_record(tmp_path).read_text())["batches"] == 2
    again = scan(text, tmp_path)
    assert same(again, scan(text))
    assert json.loads((tmp_path / "scan.json").read_text()) == json.loads(again.to_json())
    assert len(list((tmp_path / "states").iterdir())) == len(again.states)


@pytest.mark.parametrize("kind", ["images", "sounds"])
def test_images_and_sounds_by_their_files(kind: str, tmp_path: Path) -> None:
    pytest.importorskip({"images": "PIL", "sounds": "soundfile"}[kind])
    model = tiny_senses.saved({"images": "vit", "sounds": "wav2vec2"}[kind], tmp_path / "model")
    write = tiny_senses.write_photos if kind == "images" else tiny_senses.write_sounds
    data = write(tmp_path / "data")
    run = lambda folder, **options: fastaniso.scan(  # noqa: E731
        model, files_as(kind, [data]), batch_size=1, resume=folder, attention=True, **options
    )
    whole = run(None)
    assert whole.tokens.batches > 2
    with pytest.raises(ScanInterrupted):
        run(tmp_path / "run", progress=Stop(2))
    assert json.loads(own_record(tmp_path / "run").read_text())["batches"] == 2
    again = run(tmp_path / "run")
    assert same(again, whole)
    assert again.notes == whole.notes


def test_the_command_goes_on_with_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastaniso.scanning.result.save_pictures", lambda *_: [])  # they take seconds
    model, out = tiny_senses.saved("vit", tmp_path / "model"), tmp_path / "out"
    photos = tiny_senses.write_photos(tmp_path / "photos")
    arguments = ["scan", str(model), "--images", str(photos), "--batch-size", "1", "--quiet", "--out", str(out)]
    read, numbers = Readers.read, []

    def interrupted(self: Readers, turn: Turn) -> int:
        numbers.append(turn.number)
        if len(numbers) == 3:
            raise KeyboardInterrupt
        return read(self, turn)

    monkeypatch.setattr(Readers, "read", interrupted)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 130
    assert "and the same command goes on" in done.stderr
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads((out / "scan.json").read_text())
    # The third batch was under way, and is read again; no other is.
    assert numbers == [0, 1, 2, *range(2, found["tokens"]["batches"])]
    whole = json.loads(fastaniso.scan(model, photos, batch_size=1).to_json())
    assert found["complete"]
    assert found["tokens"] == whole["tokens"]
    assert found["sites"] == whole["sites"]


def test_ctrl_c_while_the_result_is_written_loses_nothing(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastaniso.scanning.result.save_pictures", lambda *_: [])
    monkeypatch.setattr(resuming, "SECONDS", 0.0)
    monkeypatch.setattr(resuming, "SHARE", 1e9)
    model, out = tiny.saved("bert", tmp_path / "model"), tmp_path / "out"
    arguments = ["scan", str(model), "--text", str(text), "--max-length", "16", "--quiet", "--out", str(out)]

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ScanResult, "save", interrupted)
        done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 130
    assert done.stderr.endswith(f"interrupted; what was measured is kept under {out}, and the same command goes on\n")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "wrote the result and 0 plots under" in done.stderr
    assert json.loads((out / "scan.json").read_text())["complete"]
    assert not (out / "scan-under-way").exists()


def test_results_may_lie_among_the_data(tmp_path: Path) -> None:
    """What a scan writes there is no change of the data."""
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text(tiny.words(20, seed=number))
    whole = scan(tmp_path)
    with pytest.raises(ScanInterrupted):
        scan(tmp_path, tmp_path / "run", progress=Stop(2))
    assert same(scan(tmp_path, tmp_path / "run"), whole)


def test_of_two_at_once_the_first_one_stops(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "SECONDS", 0.0)
    monkeypatch.setattr(resuming, "SHARE", 1e9)
    others = []

    def begin_another(progress: Any) -> None:
        if progress.steps == 3:
            others.append(scan(text, tmp_path))

    with pytest.raises(ScanStoppedError, match="the same scan has begun anew, or has ended, in"):
        scan(text, tmp_path, progress=begin_another)
    assert same(others[0], scan(text))
    assert same(scan(text, tmp_path), others[0])


def test_options_may_change_where_nothing_was_measured_yet(text: Path, tmp_path: Path) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    network = tiny.model("bert")
    network.encoder.layer[2].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        fastaniso.scan(network, text, tokenizer=tiny.tokenizer(), resume=tmp_path, attention=True)
    assert same(scan(text, tmp_path), scan(text))


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
