"""Targets of the GPU, on rows that ``bench/gpu.py`` wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.harness import OURS, Row
from bench.targets.target import MB, Measure, Target


def _worst(
    column: str,
    contender: str,
    *,
    op: str,
    worst: Callable[..., float] = min,
    bytes_from: float = 0,
    dim: int | None = None,
    dtypes: Sequence[str] = (),
) -> Measure:
    """The worst of a column over the rows of the contender, of one width if ``dim`` is given."""

    def measure(rows: Sequence[Row]) -> float | None:
        values = [
            getattr(row, column)
            for row in rows
            if (row.op, row.contender) == (op, contender)
            and (not dtypes or row.dtype in dtypes)
            and (dim is None or row.d == dim)
            and row.n * row.d * (4 if row.dtype == "float32" else 2) >= bytes_from
        ]
        values = [value for value in values if value is not None]
        return worst(values) if values else None

    return measure


_FROM_1_GB: Any = {"op": "moments", "bytes_from": 1e9}
_PAIRS: Any = {"op": "pairs", "bytes_from": 1e9, "dtypes": ("bfloat16",)}
"""A million rows of 768, and a quarter of that of 4096."""
_EVERYTHING = f"{OURS}_everything"
GPU = (
    *(
        Target(
            f"moments, share of the read bandwidth from 1 GB on, {dtype}",
            0.85,
            _worst("share_of_limit", OURS, dtypes=(dtype,), **_FROM_1_GB),
        )
        for dtype in ("float32", "bfloat16", "float16")
    ),
    Target(
        "moments, times F.normalize(x.float()).sum(0)", 3, _worst("ratio_to_ours", "normalize_float_sum", **_FROM_1_GB)
    ),
    Target(
        "gram, share of cuBLAS's bfloat16 rate, counted on the triangle",
        0.60,
        _worst("share_of_limit", OURS, op="gram", bytes_from=1e8, dtypes=("bfloat16",)),
    ),
    Target(
        "pairs, everything, n = 10⁶, d = 768, bfloat16, ms (on an H200)",
        1900,
        _worst("p50_ms", _EVERYTHING, worst=max, dim=768, **_PAIRS),
        at_least=False,
        form="{:.0f}",
    ),
    *(
        Target(
            f"pairs, everything, share of cuBLAS's bfloat16 rate, counted on the triangle, d = {dim}",
            bound,
            _worst("share_of_limit", _EVERYTHING, dim=dim, **_PAIRS),
        )
        for dim, bound in ((768, 0.50), (4096, 0.65))
    ),
    Target("pairs, times torch in chunks and histc", 10, _worst("ratio_to_ours", "torch_chunks", **_PAIRS)),
    Target(
        "pairs, everything, MiB beside the input",
        200 * MB,
        _worst("peak_mib", _EVERYTHING, worst=max, **_PAIRS),
        at_least=False,
        form="{:.0f}",
    ),
)
