"""Targets of whole calls: small ones, the import, and scans."""

from __future__ import annotations

from collections.abc import Sequence

from bench import scan, small
from bench.harness import OURS, Row
from bench.targets.target import Measure, Target


def _latency_us(rows: Sequence[Row]) -> float | None:
    ours = [row.p50_ms for row in rows if row.op == "small" and row.contender.startswith(OURS) and row.p50_ms]
    return 1e3 * max(ours) if len(ours) == 2 * len(small.SHAPES) else None


def _import_ms(rows: Sequence[Row]) -> float | None:
    return next((row.p50_ms for row in rows if row.contender == small.IMPORT), None)


def _scan_cost(contender: str, base: str) -> Measure:
    def measure(rows: Sequence[Row]) -> float | None:
        times = {row.contender: row.p50_ms for row in rows if row.op == "scan" and row.n > 0.9 * scan.TOKENS}
        ours, bare = times.get(contender), times.get(base)
        return 100 * (ours / bare - 1) if ours and bare else None

    return measure


OTHERS = (
    Target("a small call (n·d < 10⁵), µs", 60, _latency_us, at_least=False, form="{:.0f}"),
    Target("import fastaniso after torch, ms", 50, _import_ms, at_least=False, form="{:.0f}"),
    *(
        Target(f"scan with {op}, % over {base}", bound, _scan_cost(f"scan, {op}", base), at_least=False, form="{:.1f}")
        for op, bound in (("moments", 5), ("gram", 15))
        for base in (scan.TOKENISED, scan.BARE)
    ),
)
