"""Ranks of a scan that are killed, one or all, at random moments, go on to the result of an undisturbed run."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import forked
import pytest
import tiny
import torch
import torch.distributed as dist
from same_states import same_states
from test_scan_ranks import all_same, check_same, plain, scan

import fastaniso
from fastaniso.cli import commands
from fastaniso.distributed import RankError
from fastaniso.scanning import ScanStoppedError, alarm, part, resuming
from fastaniso.scanning.dealing import Turn
from fastaniso.scanning.readers import Readers
from fastaniso.state import StateMismatchError, save_state

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are forked, so that many of them take seconds"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture(autouse=True, scope="module")
def imported() -> None:
    """What a scan imports, once and not in every fork."""
    torch.set_num_threads(1)
    scan(attention=True)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(tiny.words(9, seed=n) for n in range(60)))
    return path


@pytest.fixture(autouse=True)
def soon_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has been killed is not waited for."""
    monkeypatch.setattr(alarm, "QUIET", 0.3)
    monkeypatch.setattr(alarm, "SECONDS", 0.1)


@pytest.fixture
def kept_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """After every batch."""
    monkeypatch.setattr(resuming, "SECONDS", 0.0)
    monkeypatch.setattr(resuming, "SHARE", 1e9)


def under_way(folder: Path) -> tuple[list[list[int]], list[int]]:
    """Batches of the ranks of earlier runs, and of those of the last one."""
    file = folder / "scan-under-way" / "record.json"
    if not file.is_file():
        return [], []
    record = json.loads(file.read_text())
    ranks = [file.parent / f"run-{len(record['before']) + 1}" / f"rank-{r}" for r in range(record["ranks"])]
    files = [rank / "record.json" for rank in ranks]
    return record["before"], [json.loads(f.read_text())["batches"] if f.is_file() else 0 for f in files]


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.005)


def killed(sizes: Iterator[int], kills: int, text: Path, folder: Path, seed: int, **options: Any) -> list[Any]:
    """Scans by as many ranks as ``sizes`` says next, of which some or all are killed; what was under way after each."""
    chance, found = random.Random(seed), []
    for attempt in range(10 * kills):
        if kills <= 0:
            break
        place = folder.parent / f"attempt-{seed}-{attempt}"
        begun = lambda _, place=place: (place / "begun").touch()  # noqa: E731
        given = {"data": text, "resume": folder, "progress": begun, **options}
        size = next(sizes)
        pids = forked.start(size, place, lambda _, given=given: plain(scan(group=dist.group.WORLD, **given)))
        wait_until(partial(forked.joined, place, size))
        if chance.random() < 0.8:  # else also before the first batch
            wait_until(
                lambda place=place, size=size: (place / "begun").exists() or None not in forked.told(place, size)
            )
        time.sleep(chance.random() * 0.3)
        for pid in pids if chance.random() < 0.3 else [chance.choice(pids)]:
            os.kill(pid, signal.SIGKILL)
        kills -= sum(map(os.WIFSIGNALED, forked.finish(pids, place)))
        before, batches = under_way(folder)
        if found and batches:
            # What was kept is not read again; a scan that has ended begins anew.
            assert sum(map(sum, found[-1][0])) + sum(found[-1][1]) <= sum(map(sum, before)) + sum(batches)
        found.append((before, batches))
    assert kills <= 0
    return found


def last(size: int, text: Path, folder: Path, **options: Any) -> dict[str, Any]:
    """What the scan gives that nobody kills."""
    body = lambda _: plain(scan(group=dist.group.WORLD, data=text, resume=folder, **options))  # noqa: E731
    ranks = forked.on_ranks(size, folder.parent / "last", body)
    assert all_same(ranks)
    assert not (folder / "scan-under-way").exists()
    found: dict[str, Any] = ranks[0]
    return found


def same_number(text: Path, tmp_path: Path, kills: int, seed: int, **options: Any) -> None:
    options = {"batch_size": 1, **options}
    body = lambda _: plain(scan(group=dist.group.WORLD, data=text, **options))  # noqa: E731
    undisturbed = forked.on_ranks(2, tmp_path / f"undisturbed-{seed}", body)[0]
    found = killed(iter(lambda: 2, 0), kills, text, tmp_path / "run", seed, **options)
    assert any(sum(batches) for _, batches in found)
    assert all_same([last(2, text, tmp_path / "run", **options), undisturbed])


def other_numbers(text: Path, tmp_path: Path, kills: int, seed: int, **options: Any) -> None:
    options = {"batch_size": 1, **options}
    whole = scan(data=text, **options)
    chance = random.Random(seed)
    sizes = iter(lambda: chance.randint(1, 3), 0)
    found = killed(sizes, kills, text, tmp_path / "run", seed, **options)
    assert any(sum(map(sum, before)) for before, _ in found)
    check_same(last(3, text, tmp_path / "run", **options), whole)


@pytest.mark.usefixtures("kept_always")
def test_the_same_bits_by_as_many_ranks(text: Path, tmp_path: Path) -> None:
    same_number(text, tmp_path, kills=5, seed=1, attention=True)


@pytest.mark.usefixtures("kept_always")
def test_nothing_lost_and_nothing_twice_by_other_numbers_of_ranks(text: Path, tmp_path: Path) -> None:
    other_numbers(text, tmp_path, kills=6, seed=2)


@pytest.mark.slow
@pytest.mark.usefixtures("kept_always")
@pytest.mark.parametrize("seed", range(10, 14))
def test_killed_many_times(text: Path, tmp_path: Path, seed: int) -> None:
    (other_numbers if seed % 2 else same_number)(text, tmp_path, kills=50, seed=seed, gram=seed < 12)


def stopped_after(batches: int, size: int, text: Path, folder: Path, place: Path) -> None:
    """A run by so many ranks that each of them leaves after some batches."""

    def body(_: int) -> str:
        def stop(progress: Any) -> None:
            if progress.steps == batches:
                raise OSError("enough")

        with pytest.raises(ScanStoppedError, match="enough"):
            scan(group=dist.group.WORLD, data=text, resume=folder, progress=stop, batch_size=2)
        return "stopped"

    assert forked.on_ranks(size, place, body) == ["stopped"] * size


def test_one_process_goes_on_with_what_ranks_began_and_they_with_what_it_began(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stopped_after(3, 2, text, folder, tmp_path / "a")
    with pytest.raises(ScanStoppedError) as stopped:
        scan(
            data=text,
            resume=folder,
            batch_size=2,
            progress=lambda told: exec("raise OSError") if told.steps == 2 else 0,
        )
    # What ended early has what all runs had measured.
    assert stopped.value.result.tokens.batches == 2 * 3 + 2
    assert under_way(folder) == ([[3, 3]], [2])
    stopped_after(1, 3, text, folder, tmp_path / "b")
    assert under_way(folder) == ([[3, 3], [2]], [1, 1, 1])
    check_same(last(3, text, folder, batch_size=2), scan(data=text, batch_size=2))


def test_a_run_that_still_goes_on_elsewhere_is_noticed(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stopped_after(3, 2, text, folder, tmp_path / "a")
    stopped_after(1, 3, text, folder, tmp_path / "b")
    record = folder / "scan-under-way" / "run-1" / "rank-1" / "record.json"
    record.write_text(record.read_text().replace('"batches": 3', '"batches": 4'))

    def body(_: int) -> str:
        with pytest.raises((StateMismatchError, RankError), match=r"run-1/rank-1 is not as it was when this run began"):
            scan(group=dist.group.WORLD, data=text, resume=folder, batch_size=2)
        return "told"

    assert forked.on_ranks(3, tmp_path / "c", body) == ["told"] * 3


def test_ranks_with_folders_of_their_own_or_other_weights_are_told(text: Path, tmp_path: Path) -> None:
    def apart(rank: int) -> str:
        with pytest.raises((ValueError, RankError), match=r"record.json is not seen here: all ranks need one folder"):
            scan(group=dist.group.WORLD, data=text, resume=tmp_path / f"run-{rank}")
        return "told"

    def unlike(rank: int) -> str:
        with pytest.raises((ValueError, RankError), match="holds a scan of other model"):
            scan("bert" if rank else "gpt2", group=dist.group.WORLD, data=text, resume=tmp_path / "run")
        return "told"

    assert forked.on_ranks(2, tmp_path / "a", apart) == ["told"] * 2
    assert forked.on_ranks(2, tmp_path / "b", unlike) == ["told"] * 2


@pytest.mark.usefixtures("kept_always")
def test_a_full_disk_leaves_what_was_kept_before(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, folder = 0, tmp_path / "run"

    def full(*given: Any) -> None:
        nonlocal written
        written += 1
        if written > 100:
            raise OSError(errno.ENOSPC, "no space left on device")
        save_state(*given)

    with monkeypatch.context() as patch:
        patch.setattr(part, "save_state", full)
        with pytest.raises(ScanStoppedError, match="no space left"):
            scan(data=text, resume=folder)
    _, (batches,) = under_way(folder)
    assert batches > 2
    whole = scan(data=text)
    again = scan(data=text, resume=folder)
    assert again.tokens == whole.tokens
    assert same_states(again.states, whole.states)


def command(rank: int, size: int, port: int, arguments: list[str], told: Path) -> int:
    """The command as torchrun starts it; the id of its process."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            file = os.open(told, os.O_CREAT | os.O_WRONLY)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            commands.app(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.stdout.flush()
            os._exit(code)
    return pid


@pytest.mark.parametrize("slow", [{0, 1}, {0}], ids=["all under way", "one waits for the other"])
def test_sigterm_keeps_what_all_ranks_have_measured(
    slow: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastaniso.scanning.result.save_pictures", lambda *_: [])  # they take seconds
    model, text, out = tiny.saved("bert", tmp_path / "model"), tmp_path / "text.txt", tmp_path / "out"
    text.write_text(tiny.words(800))
    whole = fastaniso.scan(model, text, max_length=16, batch_size=1)
    arguments = ["scan", str(model), "--text", str(text), "--max-length", "16", "--batch-size", "1", "--quiet"]
    arguments += ["--out", str(out)]
    read = Readers.read

    def slowly(self: Readers, turn: Turn) -> int:
        rank = int(os.environ["RANK"])
        (tmp_path / f"begun-{rank}").touch()
        time.sleep(0.05 if rank in slow else 0)
        return read(self, turn)

    def ended(name: str, then: Callable[[list[int]], object]) -> tuple[list[int], list[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pids = [command(rank, 2, port, arguments, tmp_path / f"{name}-{rank}.txt") for rank in range(2)]
        then(pids)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        return codes, [(tmp_path / f"{name}-{rank}.txt").read_text() for rank in range(2)]

    def terminate(pids: list[int]) -> None:
        wait_until(lambda: all((tmp_path / f"begun-{rank}").exists() for rank in range(2)))
        time.sleep(0.2 if len(slow) == 2 else 0.6)
        for pid in pids:
            os.kill(pid, signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Readers, "read", slowly)
        codes, shown = ended("first", terminate)
    assert codes == [143, 143], shown
    assert all("fastaniso: terminated; with --out what was measured is kept" in each for each in shown)
    before, batches = under_way(out)
    assert before == []
    assert batches[0] in range(1, 29)
    assert batches[1] in (range(1, 29) if len(slow) == 2 else [29])
    assert not (out / "scan.json").exists()
    # The same command goes on, and the first rank alone prints.
    codes, shown = ended("second", lambda _: None)
    assert codes == [0, 0], shown
    assert "wrote" in shown[0]
    assert shown[1] == ""
    found = json.loads((out / "scan.json").read_text())
    assert found["tokens"] == json.loads(whole.to_json())["tokens"]
    assert found["sites"][2]["mean_cosine"] == pytest.approx(whole.sites[2].description.mean_cosine, rel=1e-6)
    assert not (out / "scan-under-way").exists()
