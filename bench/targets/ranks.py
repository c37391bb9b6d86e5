"""Targets of work over ranks."""

from __future__ import annotations

from bench import ranks
from bench.harness import OURS
from bench.targets.target import Target, column, least

OTHERS = (
    Target(
        f"ranks, efficiency of all pairs on {ranks.RANKS} ranks of one thread",
        0.9,
        least(
            *(
                column("share_of_limit", op="ranks", contender=f"{OURS}, {ranks.RANKS} ranks", size=size, threads=1)
                for size in ranks.SIZES
            )
        ),
    ),
)
