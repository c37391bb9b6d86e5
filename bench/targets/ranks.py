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
    # With fewer rows the first candidates of every list, which each tile takes anew, are a tenth of the work.
    _efficiency("neighbors", f"{OURS} neighbors", ranks.NEIGHBOR_SIZES[-1]),
)
