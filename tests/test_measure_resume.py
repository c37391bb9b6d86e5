"""Interrupted and continued is the whole: by Ctrl-C, by an error, by kill -9, at any step; never of other rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_measure_pairs import check_equal
from test_sources_files import store

import fastaniso
from fastaniso.progress import Progress
from fastaniso.scanning import MeasureInterrupted, MeasureResult, checkpoint

ROWS = torch.randn(230, 16, generator=torch.Generator().manual_seed(0)) + 0.3
OPTIONS: dict[str, Any] = {"pairs": True, "neighbors": 5, "bins": 64, "thresholds": (0.5,), "block_rows": 50}
STEPS = 6 + 15 + 15  # blocks of both shards, tiles of pairs, tiles of neighbours


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for number, part in enumerate(ROWS.split(120)):
        store(folder / f"shard-{number}", "npy", part)
    return folder


@pytest.fixture(scope="module")
def whole(stored: Path) -> MeasureResult:
    return fastaniso.measure(stored, **OPTIONS)


def check_same(found: MeasureResult, expected: MeasureResult) -> None:
    assert found.states.keys() == expected.states.keys()
    for name in expected.states:
        check_equal(found.states[name], expected.states[name])
        assert found.states[name].coverage == expected.states[name].coverage
    assert str(found) == str(expected)


class Stop:
    """Ends a measurement at its n-th step."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.left = step
        self.error = error
        self.told: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        self.told.append(progress)
        self.left -= 1
        if not self.left:
            raise self.error


@pytest.mark.parametrize("step", [1, 3, 6, 7, 12, 21, 22, 30, 36])
def test_interrupted_and_continued_is_the_whole(stored: Path, whole: MeasureResult, tmp_path: Path, step: int) -> None:
    stop = Stop(step, KeyboardInterrupt())
    with pytest.raises(MeasureInterrupted) as stopped:
        fastaniso.measure(stored, resume=tmp_path / "run", progress=stop, **OPTIONS)
    assert stopped.value.checkpoint.folder == tmp_path / "run"
    told: list[Progress] = []
    check_same(fastaniso.measure(stored, resume=tmp_path / "run", progress=told.append, **OPTIONS), whole)
    assert len(told) == STEPS - step, "nothing is done twice"
    assert told == [] or told[-1].share == 1.0


def test_interrupted_at_every_step(stored: Path, whole: MeasureResult, tmp_path: Path) -> None:
    for _ in range(STEPS):
        with pytest.raises(MeasureInterrupted):
            fastaniso.measure(stored, resume=tmp_path / "run", progress=Stop(1, KeyboardInterrupt()), **OPTIONS)
    told: list[Progress] = []
    check_same(fastaniso.measure(stored, resume=tmp_path / "run", progress=told.append, **OPTIONS), whole)
    assert told == []


def test_an_error_keeps_what_is_done(stored: Path, whole: MeasureResult, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the disk went away"):
        fastaniso.measure(stored, resume=tmp_path, progress=Stop(18, OSError("the disk went away")), **OPTIONS)
    told: list[Progress] = []
    check_same(fastaniso.measure(stored, resume=tmp_path, progress=told.append, **OPTIONS), whole)
    assert len(told) == STEPS - 18


def test_without_a_folder_an_interruption_carries_what_is_done(
    stored: Path, whole: MeasureResult, tmp_path: Path
) -> None:
    with pytest.raises(MeasureInterrupted) as stopped:
        fastaniso.measure(stored, progress=Stop(25, KeyboardInterrupt()), **OPTIONS)
    kept = stopped.value.checkpoint
    assert kept.folder is None
    assert not kept.default_folder.exists()
    kept.save(tmp_path / "kept")
    check_same(fastaniso.measure(stored, resume=tmp_path / "kept", **OPTIONS), whole)


def test_a_second_interruption_while_saving_keeps_what_was_saved_before(
    stored: Path, whole: MeasureResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state = checkpoint.save_state

    def interrupted(state: Any, path: Path) -> None:
        if path.stem == "pairs":
            raise KeyboardInterrupt
        save_state(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_state", interrupted)
        with pytest.raises(MeasureInterrupted):
            fastaniso.measure(stored, resume=tmp_path, progress=Stop(25, KeyboardInterrupt()), **OPTIONS)
    assert [path.stem for path in (tmp_path / "states").iterdir()] == ["neighbors"]
    check_same(fastaniso.measure(stored, resume=tmp_path, **OPTIONS), whole)


def test_states_of_other_results_in_the_folder_are_not_gone_on_from(
    stored: Path, whole: MeasureResult, tmp_path: Path
) -> None:
    fastaniso.measure(store(tmp_path / "other", "npy", -2 * ROWS[:100]), **OPTIONS).save(tmp_path / "out")
    with pytest.raises(MeasureInterrupted):
        fastaniso.measure(stored, resume=tmp_path / "out", progress=Stop(2, KeyboardInterrupt()), **OPTIONS)
    check_same(fastaniso.measure(stored, resume=tmp_path / "out", **OPTIONS), whole)


def test_a_finished_run_is_read_back(stored: Path, whole: MeasureResult, tmp_path: Path) -> None:
    fastaniso.measure(stored, resume=tmp_path / "run", **OPTIONS)
    told: list[Progress] = []
    again = fastaniso.measure(stored, resume=tmp_path / "run", progress=told.append, **OPTIONS)
    check_same(again, whole)
    assert told == []


def test_a_path_may_be_spelt_otherwise(stored: Path, whole: MeasureResult, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        fastaniso.measure(stored, resume=tmp_path, progress=Stop(10, KeyboardInterrupt()), **OPTIONS)
    monkeypatch.chdir(stored.parent)
    found = fastaniso.measure(stored.name, resume=tmp_path, **OPTIONS)
    for name, state in whole.states.items():
        check_equal(found.states[name], state)


def test_states_are_saved_every_few_seconds_and_not_after_every_tile(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    save_state = checkpoint.save_state
    monkeypatch.setattr(
        checkpoint, "save_state", lambda state, path: saved.append(path.stem) or save_state(state, path)
    )
    fastaniso.measure(stored, resume=tmp_path / "slow", **OPTIONS)
    assert saved == ["neighbors", "pairs", "vectors"], "once, at the end"
    saved.clear()
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", float("inf"))
    fastaniso.measure(stored, resume=tmp_path / "quick", **OPTIONS)
    assert len(saved) == STEPS


_KILLED = """
import os, signal, sys
import fastaniso
from fastaniso.scanning import checkpoint
checkpoint.SECONDS, checkpoint.SHARE = 0.0, float("inf")
left = int(sys.argv[3])
save_state = checkpoint.save_state

def killed(state, path):
    global left
    left -= 1
    if not left:
        # Half of a file under the name that a file has while it is written.
        path.with_name(f".{path.name}.half").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    save_state(state, path)

checkpoint.save_state = killed
fastaniso.measure(sys.argv[1], resume=sys.argv[2], pairs=True, neighbors=5, bins=64, thresholds=(0.5,), block_rows=50)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("step", [2, 17, 33])
def test_killed_and_continued_is_the_whole(stored: Path, whole: MeasureResult, tmp_path: Path, step: int) -> None:
    command = [sys.executable, "-c", _KILLED, str(stored), str(tmp_path), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    told: list[Progress] = []
    check_same(fastaniso.measure(stored, resume=tmp_path, progress=told.append, **OPTIONS), whole)
    assert len(told) == STEPS - (step - 1), "what was saved before is not done again"
    assert not list((tmp_path / "states").glob(".*")), "half a file is not left"


def test_other_rows_and_other_options_are_refused(stored: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fastaniso.measure(stored, resume=run, progress=Stop(10, KeyboardInterrupt()), **OPTIONS)
    before = {path: path.read_bytes() for path in run.rglob("*.*")}
    other = store(tmp_path / "other", "npy", ROWS)
    for changed, message in (
        ({"bins": 128}, r"run holds a measurement of options pairs=\{'bins': 64, .* not \{'bins': 128"),
        ({"neighbors": None}, "options neighbors=5 and not None"),
        ({"block_rows": 40}, r"options block_rows=\[50, 50\] and not \[40, 40\]"),
        ({"backend": "reference"}, "options backend='cpu' and not 'reference'"),
        ({"gram": False}, "options gram=True and not False"),
    ):
        with pytest.raises(ValueError, match=message):
            fastaniso.measure(stored, resume=run, **{**OPTIONS, **changed})
    with pytest.raises(ValueError, match="holds a measurement of other files; choose another folder, or delete"):
        fastaniso.measure(other, resume=run, **OPTIONS)
    shard = stored / "shard-1.npy"
    times = shard.stat()
    os.utime(shard, (times.st_atime, times.st_mtime + 1))
    with pytest.raises(ValueError, match="measurement of other rows, or files that were changed since"):
        fastaniso.measure(stored, resume=run, **OPTIONS)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert before == {path: path.read_bytes() for path in run.rglob("*.*")}, "nothing was touched"
    assert fastaniso.measure(stored, resume=run, **OPTIONS).pairs is not None


def test_a_damaged_folder_is_refused(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fastaniso.measure(stored, resume=tmp_path, **OPTIONS)
    run = tmp_path / "run.json"
    content = run.read_text()
    run.write_text(content[:50])
    with pytest.raises(fastaniso.CorruptStateError, match=r"run.json is damaged"):
        fastaniso.measure(stored, resume=tmp_path, **OPTIONS)
    run.write_text(content.replace(f'"fastaniso": "{fastaniso.__version__}"', '"fastaniso": "0.0.1"'))
    with pytest.raises(ValueError, match=r"fastaniso 0\.0\.1 and not"):
        fastaniso.measure(stored, resume=tmp_path, **OPTIONS)
    run.write_text(content)
    state = tmp_path / "states" / "pairs.safetensors"
    damaged = bytearray(state.read_bytes())
    damaged[-20] ^= 1
    state.write_bytes(damaged)
    with pytest.raises(fastaniso.CorruptStateError, match=r"pairs.safetensors: checksum does not match"):
        fastaniso.measure(stored, resume=tmp_path, **OPTIONS)
    state.write_bytes((tmp_path / "states" / "vectors.safetensors").read_bytes())
    with pytest.raises(fastaniso.CorruptStateError, match=r"a state of something else as 'pairs'"):
        fastaniso.measure(stored, resume=tmp_path, **OPTIONS)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("named", [True, False], ids=["with_out", "without_out"])
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(
    tmp_path: Path, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).standard_normal((1600, 16)).astype(np.float32))
    options = ["--pairs", "--neighbors", "4", "--block-rows", "40", "--threshold", "0.5", "--no-gram"]
    command = [sys.executable, "-m", "fastaniso", "measure", "rows.npy", *options]
    out = ["--out", "kept here"] if named else []
    process = subprocess.Popen(
        [*command, *out],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "FORCE_COLOR": "1",
            "COLUMNS": "120",
            "PYTHONPATH": str(Path(fastaniso.__file__).parents[1]),
        },
        start_new_session=True,
        # A shell's background process ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    waited, shown = time.monotonic(), ""
    while " pairs/s" not in shown and time.monotonic() - waited < 60:
        shown += process.stderr.read(64)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    (said,) = [line for line in stderr.splitlines() if "fastaniso:" in line]
    folder = "kept here" if named else next(tmp_path.glob("fastaniso-measure-*")).name
    assert f"interrupted; what is done is kept under {folder}; go on with: fastaniso measure rows.npy --pairs" in said
    assert said.endswith(f"--out '{folder}'" if named else f"--out {folder}")
    pairs = fastaniso.load_state(tmp_path / folder / "states" / "pairs.safetensors")
    assert isinstance(pairs, fastaniso.Pairs)
    assert int(pairs.counts[0]) > 0
    assert json.loads((tmp_path / folder / "run.json").read_text())["names"] == ["rows.npy"]
    assert not (tmp_path / folder / "measure.json").exists()
    if named:
        monkeypatch.chdir(tmp_path)
        asked: dict[str, Any] = {"pairs": True, "neighbors": 4, "block_rows": 40, "thresholds": [0.5], "gram": False}
        told: list[Progress] = []
        continued = fastaniso.measure("rows.npy", resume=folder, progress=told.append, **asked)
        assert told[0].stage != "measuring", "it went on, and did not begin"
        check_same(continued, fastaniso.measure("rows.npy", **asked))
