"""Targets of ``gram``."""

from __future__ import annotations

from collections.abc import Sequence

from bench import gram
from bench.harness import OURS, Row
from bench.targets.target import MB, Target, ratio, share
from fastaniso.ops import cpu


def _gram_memory_over(rows: Sequence[Row]) -> float | None:
    """MiB beyond 8d², packed rows (up to 64 columns more, on whole 2 MiB pages) and 2 MB, at the worst size."""
    over = []
    for row in rows:
        if (row.op, row.contender) == ("gram", OURS) and row.peak_mib is not None and row.n >= cpu.GRAM_ROWS:
            packed = -(-4 * cpu.GRAM_ROWS * (row.d + 64) // 2**21) * 2
            over.append(row.peak_mib - 8 * row.d**2 / 2**20 - packed - 2 * MB)
    return max(over) if over else None


_MAIN = gram.MAIN
SHARES = (
    Target("gram, share of half the sgemm time, one thread", 0.86, share("gram", _MAIN, "float32", 1)),
    Target("gram, share of half the sgemm time, two threads", 0.80, share("gram", _MAIN, "float32", 2)),
    Target("gram, times ssyrk without normalisation, one thread", 1.0, ratio("gram", _MAIN, "ssyrk", 1)),
    Target("gram, times ssyrk without normalisation, two threads", 1.0, ratio("gram", _MAIN, "ssyrk", 2)),
)
OTHERS = (Target("gram, MiB beyond 8d² + packed rows + 2 MB", 0, _gram_memory_over, at_least=False),)
