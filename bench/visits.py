"""What ``pairs`` and ``neighbors`` share: contenders and general products in turns, and memory at a larger size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bench import inputs, limits
from bench.baselines import Contender
from bench.harness import OURS, Row, interleave
from bench.machine import use_threads
from bench.options import Options, row, skip_missing

Size = tuple[int, int, str]


@dataclass(frozen=True)
class Visit:
    """An op over all pairs: its contenders, what float64 makes of up to ``exact_rows`` rows, the error from that."""

    op: str
    contenders: Sequence[Contender]
    exact: Callable[[Tensor], Any]
    error: Callable[[Any, Any], float]
    exact_rows: int = 10_000

    def of(self, n: int, options: Options) -> list[Contender]:
        """The contenders to time on n rows."""
        return [
            c
            for c in self.contenders
            if (c.name.startswith(OURS) or not options.only_ours) and (c.most_rows is None or n <= c.most_rows)
        ]


def compare(
    visit: Visit,
    size: Size,
    options: Options,
    *,
    contenders: Sequence[Contender] | None = None,
    memory: bool = False,
    fewest: int = 7,
) -> list[Row]:
    """Contenders and general products in turns; ``share_of_limit`` is of half the fastest product's time for n² d.

    fastaniso and the products with each number of threads, the others with the most and in every third round.
    """
    n, d, dtype = size
    chosen = visit.of(n, options) if contenders is None else contenders
    chosen = skip_missing([c for c in chosen if dtype in c.dtypes], options)
    names = [c.name for c in chosen]
    options.say(f"{visit.op}: {n:,} × {d} {dtype}: {', '.join(names)}")
    peaks = options.peaks(visit.op, names, n, d, dtype) if memory else {}
    rows = inputs.make(n, d, dtype)
    results: dict[str, Any] = {}
    calls: dict[tuple[str, int], Callable[[], object]] = {}
    products = limits.row_products(rows)
    for threads in options.threads:
        calls |= {(name, threads): call for name, call in products.items()}
        for c in chosen:
            if c.name.startswith(OURS) or threads == options.most_threads:
                calls[c.name, threads] = functools.partial(_keep, results, c, rows)
    timings = interleave(
        calls,
        before=lambda key: use_threads(key[1]),
        seconds=10,
        rounds=options.rounds(fewest=fewest, most=15),
        seldom={key for key in calls if key[0] not in products and not key[0].startswith(OURS)},
        settle=0 if options.quick else 0.1,
    )
    use_threads(options.most_threads)
    errors: dict[str, float] = {}
    if n <= visit.exact_rows:
        exact = visit.exact(rows)
        errors = {name: visit.error(result, exact) for name, result in results.items()}

    out: list[Row] = []
    for threads in options.threads:
        taken = {name: timings[name, threads] for name in products}
        limit, ours = limits.half_of_square(taken, n), timings[OURS, threads].p50
        m = min(n, limits.PRODUCT_ROWS)
        for name, timing in taken.items():
            backend = "torch" if name.endswith("torch") else "scipy"
            out.append(row("product", name, backend, (m, d, "float32"), threads, timing, operations=2 * m * m * d))
        for c in chosen:
            if (c.name, threads) not in timings:
                continue
            last: dict[str, Any] = (
                {"peak_mib": peaks.get(c.name), "error": errors.get(c.name)} if threads == options.most_threads else {}
            )
            timing = timings[c.name, threads]
            # Of a pair two numbers are multiplied and added d times.
            operations = n * (n - 1) * d
            out.append(
                row(
                    visit.op, c.name, c.backend, size, threads, timing,
                    operations=operations, limit=limit, ours=ours, **last,
                )
            )  # fmt: skip
    return out


def memory_of(visit: Visit, size: Size, options: Options) -> list[Row]:
    """fastaniso's memory alone, at a size at which others would take long."""
    n, d, dtype = size
    ours = [c for c in visit.contenders if c.name.startswith(OURS)]
    options.say(f"{visit.op}: memory at {n:,} × {d} {dtype}")
    peaks = options.peaks(visit.op, [c.name for c in ours], n, d, dtype)
    return [
        row(visit.op, c.name, c.backend, size, options.most_threads, None, peak_mib=peaks[c.name])
        for c in ours
        if c.name in peaks
    ]


def _keep(results: dict[str, Any], contender: Contender, rows: Tensor) -> None:
    results[contender.name] = contender.call(rows)
