"""Targets of ``moments``."""

from __future__ import annotations

from collections.abc import Sequence

from bench import moments
from bench.harness import OURS, Row
from bench.targets.target import MB, Target, column, find, least, ratio, share


def _scaling(rows: Sequence[Row]) -> float | None:
    one, two = (
        find(rows, op="moments", contender=OURS, size=moments.SCALING, dtype="float32", threads=t) for t in (1, 2)
    )
    return one[0].p50_ms / two[0].p50_ms if one and two and one[0].p50_ms and two[0].p50_ms else None


_LARGE = moments.LARGE
SHARES = tuple(
    Target(f"moments, share of the read bandwidth, {dtype}", bound, share("moments", _LARGE, dtype, 2))
    for dtype, bound in (("float32", 0.95), ("bfloat16", 0.85), ("float16", 0.80))
)
OTHERS = (
    Target("moments, times F.normalize(x).sum(0)", 10, ratio("moments", _LARGE, "normalize_sum")),
    Target("moments, times vector_norm and matvec", 2, ratio("moments", _LARGE, "norm_matvec")),
    Target("moments, times NumPy's einsum and matvec", 3.5, ratio("moments", _LARGE, "einsum_matvec")),
    Target("moments, two threads over one, n = 50 000", 1.8, _scaling),
    Target(
        "moments, times the full matrix of torch or torchmetrics, n = 20 000",
        500,
        least(*(ratio("moments", moments.FULL_MATRIX, f"{name}_full_matrix") for name in ("torch", "torchmetrics"))),
        form="{:.0f}",
    ),
    Target(
        "moments, MiB beside the input, n = 10⁶ (every dtype)",
        2 * MB,
        column("peak_mib", max, op="moments", contender=OURS, size=_LARGE),
        at_least=False,
    ),
    Target(
        "mean cosine, relative error, n = 10⁶ (every dtype)",
        1e-9,
        column("error", max, op="moments", contender=OURS, size=_LARGE),
        at_least=False,
        form="{:.1e}",
    ),
    Target(
        "mean cosine, absolute error, isotropic, n = 10⁶ (every dtype)",
        1e-14,
        column("error", max, op="moments", contender=OURS, size=_LARGE, kind="isotropic"),
        at_least=False,
        form="{:.1e}",
    ),
)
