"""One measurement by many processes: whatever is killed, damaged or done twice, the whole is the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from same_states import same_states
from typer.testing import CliRunner

import fastaniso
from fastaniso import CorruptStateError, InvalidRowsError, StateMismatchError
from fastaniso.cli import app
from fastaniso.progress import Progress
from fastaniso.tasks import Folded, Incomplete, ManifestError, fold, plan_tasks, run_task

ROWS = torch.randn(230, 12, generator=torch.Generator().manual_seed(0)) + 0.3
OPTIONS: dict[str, Any] = {"pairs": True, "bins": 64, "thresholds": (0.5,), "neighbors": 3, "tiles": 10}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for number, part in enumerate(ROWS.split(100)):
        np.save(folder / f"part-{number}.npy", part.numpy())
    return folder


def planned(data: Path, name: str = "run", **options: Any) -> Path:
    folder = data.parent / name
    plan_tasks(data, folder, **{**OPTIONS, **options})
    return folder


def same_bits(ours: Folded, theirs: Folded) -> bool:
    return same_states(ours.result.states, theirs.result.states)


@pytest.fixture
def whole(data: Path) -> Folded:
    """By one process without any disturbance."""
    folder = planned(data, "whole")
    assert run_task(folder, data) == 4 + 10 + 10
    return fold(folder)


def test_the_tiles_give_what_one_measurement_gives(data: Path, whole: Folded) -> None:
    measured = fastaniso.measure(data, pairs=True, bins=64, thresholds=(0.5,), neighbors=3)
    ours, theirs = whole.result, measured
    assert ours.pairs is not None
    assert theirs.pairs is not None
    assert ours.pairs.histogram.counts().tolist() == theirs.pairs.histogram.counts().tolist()
    assert ours.pairs.max == theirs.pairs.max
    # Kernels add float32 rows in float32 for a while: where blocks begin changes the last digits.
    assert ours.description.mean_cosine == pytest.approx(theirs.description.mean_cosine, rel=1e-7)
    assert ours.description.effective_rank == pytest.approx(theirs.description.effective_rank, rel=1e-7)
    assert ours.neighbors is not None
    assert theirs.neighbors is not None
    assert torch.equal(ours.neighbors.indices, theirs.neighbors.indices)
    assert torch.equal(ours.neighbors.cosines, theirs.neighbors.cosines)
    assert (whole.missing, whole.total) == ((), 24)
    assert ours.hubness == theirs.hubness or ours.hubness.skewness == theirs.hubness.skewness  # type: ignore[union-attr]


@pytest.mark.parametrize("shares", [2, 5, 100])
def test_any_number_of_processes_in_any_order_gives_the_same_bits(data: Path, whole: Folded, shares: int) -> None:
    folder = planned(data)
    order = list(range(shares))
    random.Random(shares).shuffle(order)
    assert sum(run_task(folder, data, task=(share, shares)) for share in order) == 24
    assert same_bits(fold(folder), whole)
    # All is done: nothing is done again, whatever the number of shares.
    assert run_task(folder, data, task=(0, 1)) == 0


def test_what_is_missing_is_said(data: Path) -> None:
    folder = planned(data)
    seen: list[Progress] = []
    run_task(folder, data, task=(0, 2), progress=seen.append)
    assert (seen[-1].done, seen[-1].unit, seen[-1].share) == (12, "tiles", 1.0)
    with pytest.raises(Incomplete, match=r"12 of 24 tiles are missing \(pairs-2-3, pairs-3-3, neighbors-0-0"):
        fold(folder)
    part = fold(folder, partial=True)
    assert len(part.missing) == 12
    assert part.result.pairs is not None
    # Of four blocks, the last of 56 rows: (0, 0) … (1, 3) and (2, 2).
    sizes, there = (58, 58, 58, 56), [(0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 2)]
    pairs = sum(sizes[i] * (sizes[i] - 1) // 2 if i == j else sizes[i] * sizes[j] for i, j in there)
    assert part.result.pairs.histogram.counts().sum() == pairs


def _child(folder: Path, data: Path, task: tuple[int, int]) -> int:
    """A process that does a share: forked, so that fifty of them take seconds."""
    pid = os.fork()
    if pid == 0:
        try:
            run_task(folder, data, task=task)
        finally:
            os._exit(0)
    return pid


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_fifty_times_at_random_moments(data: Path, whole: Folded) -> None:
    chance = random.Random(7)
    kills = 0
    for number in range(60):
        folder = data.parent / "killed"
        if not folder.exists():
            planned(data, "killed")
        shares = chance.choice([1, 2, 3])
        children = [_child(folder, data, (share, shares)) for share in range(shares)]
        time.sleep(chance.random() * 0.02)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        kills += sum(os.WIFSIGNALED(os.waitpid(pid, 0)[1]) for pid in children)
        if number % 6 == 5:
            run_task(folder, data)
            assert same_bits(fold(folder), whole)
            shutil.rmtree(folder)
    assert kills >= 50


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_runs_at_once_do_no_harm(data: Path, whole: Folded) -> None:
    folder = planned(data)
    for pid in [_child(folder, data, (0, 1)) for _ in range(3)]:
        assert os.waitpid(pid, 0)[1] == 0
    assert same_bits(fold(folder), whole)
    assert not list((folder / "tiles").glob(".*"))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "swapped", "duplicated", "huge"])
def test_damaged_and_foreign_states_are_refused(data: Path, whole: Folded, damage: str) -> None:
    folder = planned(data)
    run_task(folder, data)
    tiles = folder / "tiles"
    path = tiles / "pairs-1-2.safetensors"
    content = path.read_bytes()
    error: type[Exception] = CorruptStateError
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        path.write_bytes(content[:-5] + bytes([content[-5] ^ 4]) + content[-4:])
    elif damage == "huge":
        path.write_bytes(content + bytes(2 << 20))
    elif damage == "foreign":
        other = planned(data, "other", bins=128)
        run_task(other, data)
        shutil.copy(other / "tiles" / path.name, path)
        error = StateMismatchError
    else:
        shutil.copy(tiles / ("pairs-0-1.safetensors" if damage == "duplicated" else "neighbors-1-2.safetensors"), path)
        error = CorruptStateError if damage == "swapped" and path.stat().st_size > (1 << 20) else StateMismatchError
    with pytest.raises(error, match="pairs-1-2"):
        fold(folder)
    # The remedy: the tile is done again.
    path.unlink()
    assert run_task(folder, data) == 1
    assert same_bits(fold(folder), whole)


def test_files_that_change_between_runs_are_refused(data: Path) -> None:
    folder = planned(data)
    run_task(folder, data, task=(0, 3))
    np.save(data / "part-1.npy", ROWS[:100].numpy())
    with pytest.raises(ManifestError, match="changed since the work was planned"):
        run_task(folder, data, task=(1, 3))
    (data / "part-1.npy").unlink()
    with pytest.raises(ManifestError, match=r"lacks part-1.npy"):
        run_task(folder, data, task=(1, 3))


def test_rows_that_cannot_be_normalised_in_one_file_only(data: Path) -> None:
    bad = ROWS[100:200].clone()
    bad[7] = torch.nan
    np.save(data / "part-1.npy", bad.numpy())
    folder = planned(data)
    run_task(folder, data, task=(0, 1))
    with pytest.raises(InvalidRowsError, match="row 107"):
        fold(folder)
    found = fold(folder, invalid="omit").result
    assert (found.description.n, found.description.dropped.nonfinite) == (229, 1)
    assert found.pairs is not None
    assert found.pairs.histogram.counts().sum() == 229 * 228 // 2


def test_a_full_disk_loses_a_tile_and_no_more(data: Path, whole: Folded) -> None:
    folder = planned(data)
    code = f"""
import resource, signal
from fastaniso.tasks import run_task
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
run_task({str(folder)!r}, {str(data)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "OSError" in done.stderr
    assert not list((folder / "tiles").glob(".*"))  # nothing half written is left
    run_task(folder, data)
    assert same_bits(fold(folder), whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": ["../../etc/passwd.npy"]}, "no name of a file under the folder"),
        ({"files": ["/etc/passwd.npy"]}, "no name of a file under the folder"),
        ({"files": ["part-0.npy", "part-0.npy"]}, "each once"),
        ({"files": [3]}, "no name of a file"),
        ({"count": 2**60}, "count is"),
        ({"count": True}, "count is"),
        ({"block_rows": 0}, "block_rows is"),
        ({"block_rows": 1, "count": 2**40}, "more tiles than can be meant"),
        ({"dtype": "float8"}, "dtype is 'float8'"),
        ({"kind": "something"}, "no manifest"),
        ({"fastaniso": "9"}, "of fastaniso 9"),
        ({"pairs": {"bins": 10**9, "thresholds": [], "uniformity_t": []}}, "bins is"),
        ({"pairs": {}}, "damaged"),
        ({"neighbors": 1000}, "neighbors is"),
    ],
    ids=str,
)
def test_a_manifest_is_checked_before_it_is_believed(data: Path, change: dict[str, Any], message: str) -> None:
    folder = planned(data)
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ManifestError, match=message):
        run_task(folder, data)


def test_a_link_out_of_the_folder_of_data_is_refused(data: Path) -> None:
    folder = planned(data)
    shutil.move(data / "part-0.npy", data.parent / "elsewhere.npy")
    (data / "part-0.npy").symlink_to(data.parent / "elsewhere.npy")
    with pytest.raises(ManifestError, match=r"part-0.npy: leads out of"):
        run_task(folder, data)


def test_bad_input(data: Path) -> None:
    folder = planned(data)
    planned(data)  # the same work may be planned again
    with pytest.raises(ManifestError, match="manifest of something else"):
        planned(data, bins=128)
    with pytest.raises(ManifestError, match=r"holds no manifest\.json; plan one with"):
        run_task(data, data)
    for task in ((0, 0), (3, 3), (-1, 2)):
        with pytest.raises(ValueError, match=r"task: expected \(i, N\)"):
            run_task(folder, data, task=task)
    with pytest.raises(ValueError, match="tiles: expected a positive int"):
        planned(data, "other", tiles=0)


def test_no_rows_and_more_processes_than_tiles(tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.empty((0, 5), np.float32))
    folder = tmp_path / "run"
    assert plan_tasks(tmp_path / "none.npy", folder, pairs=True).tiles == ()
    assert run_task(folder, tmp_path, task=(3, 4)) == 0
    assert fold(folder).result.description.n == 0


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_line(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    told = command("plan", data, "--out", folder, "--pairs", "--tiles", 6)
    assert told.exit_code == 0, told.stderr
    assert "230 rows of 12 in 3 blocks: 9 tiles" in told.stdout
    early = command("merge", folder)
    assert early.exit_code == 1
    assert "9 of 9 tiles are missing" in early.stderr
    for share in range(2):
        assert command("run", folder, "--data", data, "--task", f"{share}/2", "-q").exit_code == 0
    merged = command("merge", folder, "--json", "--out", tmp_path / "out")
    assert merged.exit_code == 0, merged.stderr
    found = json.loads(merged.stdout)
    assert found["mean_cosine"] == pytest.approx(fastaniso.mean_cosine(ROWS), rel=1e-7)
    assert (tmp_path / "out" / "measure.json").is_file()
    assert command("run", folder, "--data", data, "--task", "2/2").exit_code == 2
    # Under torchrun a process knows its share.
    told = CliRunner(env={"RANK": "3", "WORLD_SIZE": "9"}).invoke(app, ["run", str(folder), "--data", str(data), "-q"])
    assert "task 3/9: 0 tiles done" in told.stdout
    (folder / "tiles" / "pairs-0-1.safetensors").unlink()
    part = command("merge", folder, "--partial")
    assert part.exit_code == 0
    assert "1 of 9 tiles are missing and not in these figures: pairs-0-1" in part.stderr


@pytest.mark.alone
def test_sigterm_keeps_what_is_done(tmp_path: Path) -> None:
    rows = torch.randn(30_000, 32, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "rows.npy", rows.numpy())
    folder = tmp_path / "run"
    plan_tasks(tmp_path / "rows.npy", folder, pairs=True, tiles=300)
    arguments = [sys.executable, "-m", "fastaniso", "run", str(folder), "--data", str(tmp_path), "-q"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        while len(list((folder / "tiles").glob("[!.]*"))) < 40:
            time.sleep(0.01)
        process.terminate()
        _, told = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "the tiles done are kept" in told
    assert 40 <= len(list((folder / "tiles").glob("[!.]*"))) < 300
    assert not list((folder / "tiles").glob(".*"))
    run_task(folder, tmp_path)
    found = fold(folder).result
    assert found.pairs is not None
    assert found.pairs.histogram.counts().sum() == 30_000 * 29_999 // 2


@pytest.mark.alone
def test_measure_under_torchrun(data: Path, whole: Folded, tmp_path: Path) -> None:
    out = tmp_path / "out"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29611"]
    arguments = ["measure", data, "--pairs", "--bins", 64, "--threshold", 0.5, "--neighbors", 3, "--out", out, "--json"]
    done = subprocess.run(
        [*launcher, "-m", "fastaniso", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)  # of one rank only
    assert found["mean_cosine"] == pytest.approx(whole.result.description.mean_cosine, rel=1e-7)
    assert found["pair_statistics"]["n"] == 230
    assert (out / "measure.json").is_file()
    assert (out / "tasks" / "manifest.json").is_file()
