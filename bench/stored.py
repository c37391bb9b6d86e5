"""One pass over stored rows by ranks of one thread each, and the share of it in which rows are waited for.

Each rank does its share of a manifest's tiles, states in files included, from pages in memory and from the disk; and
one process measures the same file over HTTP from this machine, reading ahead.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

import fastaniso
from bench import inputs
from bench.group import on_ranks
from bench.harness import OURS, Row, Timing
from bench.machine import use_threads
from bench.options import Options, row
from bench.served import served
from fastaniso.tasks import fold, plan_tasks, run_task

SIZE, QUICK = (262_144, 384), (4_000, 32)
RANKS = (1, 2)
ROUNDS = 3
OPS = ("moments", "gram")
WARM, COLD = "warm file", "file from disk"


def run(options: Options) -> list[Row]:
    """A row an op, count of ranks and place of the rows; `of limit` is the share of the time that is not waiting.

    Of a warm file it is the efficiency instead: one rank's time over ranks.
    """
    n, d = QUICK if options.quick else SIZE
    rounds = 1 if options.quick else ROUNDS
    options.say(f"stored: {n:,} × {d} float32 by 1 and 2 ranks, from memory, disk and HTTP")
    out: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows" / "rows.npy"
        path.parent.mkdir()
        _write(path, n, d)
        found = on_ranks(measure, max(RANKS), path=str(path), rounds=rounds)[0]
        for op in OPS:
            one = Timing.of(found[f"{op} 1 {WARM}"]).p50
            for place in (WARM, COLD):
                for ranks in RANKS:
                    warm = Timing.of(found[f"{op} {ranks} {WARM}"]).p50
                    contender = f"{OURS} {op}, {ranks} rank{'s' * (ranks > 1)}, {place}"
                    timing = Timing.of(found[f"{op} {ranks} {place}"])
                    limit = one / ranks if place == WARM else warm
                    out.append(row("stored", contender, "cpu", (n, d, "float32"), 1, timing, limit=limit, ours=one))
            if importlib.util.find_spec("aiohttp") and importlib.util.find_spec("fsspec"):
                timing, busy = _over_http(path, op, rounds)
                contender = f"{OURS} {op}, 1 process, HTTP of this machine"
                out.append(row("stored", contender, "cpu", (n, d, "float32"), 1, timing, limit=busy, ours=one))
            else:
                options.say("left out: over HTTP, which needs fsspec and aiohttp")
    return out


def _write(path: Path, n: int, d: int) -> None:
    np.save(path, inputs.make(n, d, "float32").numpy())
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _over_http(path: Path, op: str, rounds: int) -> tuple[Timing, float]:
    """Of a pass, and the seconds of it in which rows were not waited for."""
    use_threads(1)
    seconds: list[float] = []
    busy: list[float] = []
    with served(path.parent) as url:
        for number in range(rounds + 1):
            began = time.perf_counter()
            result = fastaniso.measure(f"{url}/{path.name}", gram=op == "gram")
            taken = time.perf_counter() - began
            if number:  # the first is warm-up
                seconds.append(taken)
                busy.append(taken - result.provenance["waiting"]["seconds"])
    return Timing.of(seconds), Timing.of(busy).p50


def measure(rank: int, *, path: str, rounds: int) -> dict[str, list[float]]:
    """Seconds from the first tile to the merged state, by op, ranks and place."""
    taken: dict[str, list[float]] = {}
    groups = {ranks: dist.new_group(list(range(ranks))) for ranks in RANKS}
    for number in range(rounds + 1):
        for op in OPS:
            for ranks, group in groups.items():
                for place in (COLD, WARM):
                    dist.barrier()
                    if rank < ranks:
                        states = Path(path).parent.parent / f"{number} {op} {ranks} {place}"
                        seconds = _pass(rank, ranks, group, Path(path), states, op, cold=place == COLD)
                        if number:  # the first is warm-up
                            taken.setdefault(f"{op} {ranks} {place}", []).append(seconds)
    return taken


def _pass(rank: int, ranks: int, group: Any, path: Path, states: Path, op: str, *, cold: bool) -> float:
    if rank == 0:
        plan_tasks(path, states, gram=op == "gram")
        if cold:
            _drop_pages(path)
    dist.barrier(group)
    began = time.perf_counter()
    run_task(states, path.parent, task=(rank, ranks))
    dist.barrier(group)
    if rank == 0:
        fold(states)
    dist.barrier(group)
    return time.perf_counter() - began


def _drop_pages(path: Path) -> None:
    """Let the system forget the file's pages, so that it is read from the disk."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
