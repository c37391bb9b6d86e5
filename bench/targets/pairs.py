"""Targets of ``pairs``."""

from __future__ import annotations

from collections.abc import Sequence

from bench import pairs
from bench.baselines import PAIRS
from bench.harness import OURS, Row
from bench.targets.target import MB, Measure, Target, least, ratio, share

TILES = tuple(c.name for c in PAIRS if c.name.startswith("torch_tiles"))


def _shares(*sizes: tuple[int, int], contender: str = OURS) -> Measure:
    """The least over sizes and one and two threads."""
    return least(*(share("pairs", size, "float32", threads, contender) for size in sizes for threads in (1, 2)))


def _memory_mib(rows: Sequence[Row]) -> float | None:
    """MiB beyond 1 MB a thread, at the worst size; None unless two sizes were measured."""
    taken = {
        (row.n, row.contender): row.peak_mib - (row.threads or 0) * MB
        for row in rows
        if row.op == "pairs" and row.contender.startswith(OURS) and row.peak_mib is not None
    }
    return max(taken.values()) if len({n for n, _ in taken}) > 1 else None


_BOTH = "one and two threads"
SHARES = (
    Target(f"pairs, histogram, share of half the sgemm time, d = 768, {_BOTH}", 0.97, _shares(pairs.MAIN, pairs.LARGE)),
    Target(
        f"pairs, everything, share of half the sgemm time, d = 768, {_BOTH}",
        0.95,
        _shares(pairs.MAIN, pairs.LARGE, contender=pairs.EVERYTHING),
    ),
)
OTHERS = (
    Target(f"pairs, histogram, share of half the sgemm time, d = 384, {_BOTH}", 0.95, _shares(*pairs.NARROW)),
    Target(
        f"pairs, everything, share of half the sgemm time, d = 384, {_BOTH}",
        0.90,
        _shares(*pairs.NARROW, contender=pairs.EVERYTHING),
    ),
    Target(f"pairs, histogram, share of half the sgemm time, n = 2000, {_BOTH}", 0.88, _shares(pairs.FEW)),
    Target(f"pairs, histogram, share of half the sgemm time, d = 4096, {_BOTH}", 0.90, _shares(pairs.WIDE)),
    Target(
        "pairs, times the best careful torch tiling",
        1.6,
        least(*(ratio("pairs", pairs.MAIN, name) for name in TILES)),
    ),
    Target("pairs, times torch in chunks and histc", 3, ratio("pairs", pairs.MAIN, "torch_chunks")),
    Target("pairs, times NumPy's full matrix", 8, ratio("pairs", pairs.MAIN, "numpy_full_matrix")),
    Target("pairs, times NumPy in chunks", 8, ratio("pairs", pairs.MAIN, "numpy_chunks")),
    Target("pairs, times scikit-learn in chunks", 10, ratio("pairs", pairs.MAIN, "sklearn_chunks")),
    Target("pairs, times SciPy's pdist, n = 2000", 100, ratio("pairs", pairs.FEW, "scipy_pdist")),
    Target(
        "pairs, MiB beside the input and 1 MB a thread, n = 10 000 and 40 000",
        24 * MB,
        _memory_mib,
        at_least=False,
    ),
)
