"""Targets of work over ranks."""

from __future__ import annotations

from bench import ranks
from bench.harness import OURS
from bench.targets.target import Target, column


def _efficiency(call: str, contender: str, size: tuple[int, int]) -> Target:
    found = column("share_of_limit", op="ranks", contender=f"{contender}, {ranks.RANKS} ranks", size=size, threads=1)
    n, d = size
    return Target(f"ranks, efficiency of {call} of {n:,} × {d} on {ranks.RANKS} ranks of one thread", 0.9, found)


OTHERS = (
    *(_efficiency("all pairs", OURS, size) for size in ranks.SIZES),
    # Shorter calls lose more to waiting: lists are handed on three times.
    _efficiency("neighbors", f"{OURS} neighbors", ranks.NEIGHBOR_SIZES[-1]),
)
