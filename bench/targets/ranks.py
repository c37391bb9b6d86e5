"""Targets of work over ranks."""

from __future__ import annotations

from collections.abc import Sequence

from bench import ranks
from bench.harness import OURS
from bench.targets.target import Target, column, least


def _efficiency(call: str, contender: str, sizes: Sequence[tuple[int, int]]) -> Target:
    """At the worst of the sizes."""
    name = f"{contender}, {ranks.RANKS} ranks"
    found = [column("share_of_limit", op="ranks", contender=name, size=size, threads=1) for size in sizes]
    return Target(f"ranks, efficiency of {call} on {ranks.RANKS} ranks of one thread", 0.9, least(*found))


OTHERS = (
    _efficiency("all pairs", OURS, ranks.SIZES),
    # With fewer rows the first candidates of every list, which each tile takes anew, are a tenth of the work.
    _efficiency("neighbors, 20,000 rows", f"{OURS} neighbors", ranks.NEIGHBOR_SIZES[1:]),
)
