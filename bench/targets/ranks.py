"""Targets of work over ranks."""

from __future__ import annotations

from bench import ranks
from bench.harness import OURS
from bench.targets.target import Target, column, least

OTHERS = tuple(
    Target(
        f"ranks, efficiency of all {call}{what} on {ranks.RANKS} ranks of one thread",
        0.9,
        least(
            *(
                column(
                    "share_of_limit", op="ranks", contender=f"{contender}, {ranks.RANKS} ranks", size=size, threads=1
                )
                for size in sizes
            )
        ),
    )
    for call, what, contender, sizes in (
        ("pairs", "", OURS, ranks.SIZES),
        ("pairs", ", neighbours", f"{OURS} neighbors", ranks.NEIGHBOR_SIZES),
    )
)
