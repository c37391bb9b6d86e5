"""Targets of ``neighbors``."""

from __future__ import annotations

from collections.abc import Sequence

from bench import neighbors
from bench.baselines import K
from bench.harness import OURS, Row
from bench.targets.target import MB, Target, least, ratio, share


def _memory_mib(rows: Sequence[Row]) -> float | None:
    """MiB beyond the result and 1 MB a thread, at the worst size; None unless two sizes were measured."""
    taken = {
        row.n: row.peak_mib - 12 * row.n * K / 2**20 - (row.threads or 0) * MB
        for row in rows
        if (row.op, row.contender) == ("neighbors", OURS) and row.peak_mib is not None
    }
    return max(taken.values()) if len(taken) > 1 else None


SHARES = (
    Target(
        f"neighbors, k = {K}, share of half the sgemm time, d = 768, one and two threads",
        0.92,
        least(
            *(
                share("neighbors", size, "float32", threads)
                for size in (neighbors.MAIN, neighbors.LARGE)
                for threads in (1, 2)
            )
        ),
    ),
)
OTHERS = (
    Target("neighbors, times torch in chunks and topk", 3, ratio("neighbors", neighbors.MAIN, "torch_chunks_topk")),
    Target("neighbors, times faiss's flat index", 9, ratio("neighbors", neighbors.MAIN, "faiss_flat")),
    Target("two_nn, times scikit-dimension, n = 20 000", 11, ratio("two_nn", neighbors.LARGE, "skdim_two_nn")),
    Target(
        "neighbors, MiB beside the input, the result and 1 MB a thread, n = 10 000 and 40 000",
        24 * MB,
        _memory_mib,
        at_least=False,
    ),
)
