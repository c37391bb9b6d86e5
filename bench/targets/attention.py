"""Targets of ``attention``."""

from __future__ import annotations

from collections.abc import Sequence

from bench import attention
from bench.harness import OURS, Row
from bench.targets.target import MB, Target, column, least


def _share(op: str, dim: int, threads: int) -> Target:
    """Of the time of products and exponentials alone."""
    measure = column(
        "share_of_limit",
        op=op,
        contender=OURS,
        size=(attention.MAIN[0], dim),
        dtype="float32",
        threads=threads,
        kind=attention.KIND,
    )
    return Target(f"{op}, share of its products and exponentials, d = {dim}, {threads} thread(s)", 0.8, measure)


def _memory_mib(rows: Sequence[Row]) -> float | None:
    """MiB beside queries and keys at the worst size; None unless two sizes were measured."""
    ours = [row for row in rows if (row.op, row.contender) == ("attention", OURS)]
    taken = {row.n: row.peak_mib for row in ours if row.peak_mib is not None}
    return max(taken.values()) if len(taken) > 1 else None


SHARES = tuple(_share("attention", dim, threads) for dim in (64, 128) for threads in (1, 2))
OTHERS = (
    *(
        Target(
            f"{op}, times the best of torch in blocks and full maps",
            10,
            least(
                *(
                    column(
                        "ratio_to_ours",
                        op=op,
                        contender=name,
                        size=attention.MAIN,
                        dtype="float32",
                        kind=attention.KIND,
                    )
                    for name in ("torch_blocks", "torch_full_maps")
                )
            ),
        )
        for op in ("attention", "attention_causal")
    ),
    Target("attention, MiB beside queries and keys, 2048 and 8192 of each", 24 * MB, _memory_mib, at_least=False),
)
