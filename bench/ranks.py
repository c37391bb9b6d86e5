"""All pairs over ranks, each with one thread: work over time × ranks, against one rank alone.

One group of processes runs all counts of ranks in turns, call by call; those that a call does not need wait.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from bench import inputs
from bench.group import cores, on_ranks
from bench.harness import OURS, Row, Timing
from bench.options import Options, row
from fastaniso import distributed
from fastaniso.distributed.exchange import exchange

RANKS = 2
K = 10


@dataclass(frozen=True)
class Case:
    """A call on n rows of d numbers, on one rank and on each of ``ranks``, and with ``uneven`` on two, rows 1:3."""

    call: str
    n: int
    d: int
    rounds: int
    ranks: tuple[int, ...] = (RANKS,)
    uneven: bool = False


SIZES = ((8_000, 768), (16_000, 384), (20_000, 768), (32_000, 384))
NEIGHBOR_SIZES = ((8_000, 768), (20_000, 768))
CASES = (
    *(Case("pairs", n, d, rounds) for (n, d), rounds in zip(SIZES, (9, 5, 3, 3), strict=True)),
    *(Case("neighbors", n, d, rounds) for (n, d), rounds in zip(NEIGHBOR_SIZES, (5, 2), strict=True)),
    Case("pairs", 12_000, 384, 4, (RANKS, 4, 8), uneven=True),
)
QUICK = (Case("pairs", 600, 32, 2, (RANKS, 3), uneven=True), Case("neighbors", 600, 32, 2))


def run(options: Options) -> list[Row]:
    """Two rows for each count of ranks: the time between barriers, and the CPU time of a rank."""
    out: list[Row] = []
    cases = QUICK if options.quick else CASES
    for ranks in sorted({max(case.ranks) for case in cases}):
        some = [case for case in cases if max(case.ranks) == ranks]
        for case in some:
            options.say(f"ranks: {case.call} of {case.n:,} × {case.d} on 1, {', '.join(map(str, case.ranks))} ranks")
        asked = [[case.call, case.n, case.d, case.rounds, list(_shares(case).values())] for case in some]
        found = on_ranks(measure, ranks, asked=asked)
        for place, case in enumerate(some):
            out += _rows(case, list(_shares(case)), [of_rank[place] for of_rank in found])
    return out


def _shares(case: Case) -> dict[str, list[int]]:
    """Rows of each rank, by what the row of the table is called."""
    named = {"1 rank": [case.n]}
    for ranks in case.ranks:
        more = f" on {cores()} cores" if ranks > cores() else ""
        # The last rank has what is left over.
        each = case.n // ranks
        named[f"{ranks} ranks{more}"] = [each] * (ranks - 1) + [case.n - each * (ranks - 1)]
    if case.uneven:
        named[f"{RANKS} ranks, rows 1:3"] = [case.n // 4, case.n - case.n // 4]
    return named


def _rows(case: Case, names: Sequence[str], found: Sequence[Any]) -> list[Row]:
    """``found[rank][place]`` has the seconds of a rank for the share of rows at that place."""
    one = found[0][0]
    ours = Timing.of(one["wall"]).p50
    out = []
    for place, name in enumerate(names):
        taking_part = [each[place] for each in found if each[place]["wall"]]
        ranks = len(taking_part)
        contender = f"{OURS}, {name}" if case.call == "pairs" else f"{OURS} {case.call}, {name}"
        # As if each rank, or each core where they are fewer, worked as one that is alone, on its share of the pairs.
        wall = Timing.of(taking_part[0]["wall"])
        timed = [(contender, wall, ours / min(ranks, cores()))]
        if ranks > 1:
            # What counts where ranks share cores, or the machine is busy: waiting takes no CPU time.
            of_ranks = Timing.of([seconds for each in taking_part for seconds in each["cpu"]])
            timed.append((f"{contender}, CPU time of each", of_ranks, Timing.of(one["cpu"]).p50 / ranks))
        out += [
            row(
                "ranks", each, "cpu", (case.n, case.d, "float32"), 1, timing,
                operations=case.n * (case.n - 1) * case.d / (1 if timing is wall else ranks), limit=limit, ours=ours,
            )
            for each, timing, limit in timed
        ]  # fmt: skip
    return out


def measure(rank: int, *, asked: list[list[Any]]) -> list[list[dict[str, list[float]]]]:
    """For each case, for each way to share out its rows: a rank's seconds between barriers, and of its CPU."""
    return [_measure(rank, *case) for case in asked]


def _measure(
    rank: int, call: str, n: int, d: int, rounds: int, shares: list[list[int]]
) -> list[dict[str, list[float]]]:
    rows = inputs.make(n, d, "float32")
    parts = []
    for counts in shares:
        group = dist.new_group(list(range(len(counts))))
        parts.append((torch.split(rows, counts)[rank], group) if rank < len(counts) else None)
    taken: list[dict[str, list[float]]] = [{"wall": [], "cpu": []} for _ in shares]
    for number in range(rounds + 1):
        for part, seconds in zip(parts, taken, strict=True):
            dist.barrier()
            if part is None:
                continue
            own, group = part
            dist.barrier(group)
            began, cpu = time.perf_counter(), time.process_time()
            if call == "pairs":
                distributed.pairs(own, group=group)
            else:
                distributed.nearest_neighbors(own, K, group=group)
            cpu = time.process_time() - cpu
            dist.barrier(group)
            if number:  # the first is warm-up
                seconds["wall"].append(time.perf_counter() - began)
                seconds["cpu"].append(cpu)
    return taken


def send(rank: int, *, size: int) -> tuple[float, float]:
    """Bytes sent each way between two ranks: the seconds it takes, and of a rank's CPU."""
    ours, theirs = torch.ones(size, dtype=torch.uint8), torch.empty(size, dtype=torch.uint8)
    walls, cpus = [], []
    for _ in range(12):
        dist.barrier()
        began, cpu = time.perf_counter(), time.process_time()
        exchange((ours,), 1 - rank, (theirs,), 1 - rank, None)()
        walls.append(time.perf_counter() - began)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls[2:]), statistics.median(cpus[2:])
