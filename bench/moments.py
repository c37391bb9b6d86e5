"""``moments``: share of the read bandwidth, against what users write, and how it scales with threads."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

from bench import inputs, limits
from bench.baselines import MOMENTS, Contender, error_of_mean
from bench.harness import OURS, Row, Timing, interleave
from bench.machine import use_threads
from bench.options import Options, row, skip_missing

LARGE, FULL_MATRIX, SCALING = (1_000_000, 768), (20_000, 768), (50_000, 768)
QUICK = {LARGE: (20_000, 64), FULL_MATRIX: (1_000, 64), SCALING: (30_000, 64)}


def run(options: Options) -> list[Row]:
    """All sizes and dtypes."""
    large, full_matrix, scaling = ((QUICK[s] if options.quick else s) for s in (LARGE, FULL_MATRIX, SCALING))
    linear = [c for c in MOMENTS if not c.full_matrix and (c.name == OURS or not options.only_ours)]
    if options.quick:  # compiling takes longer than everything else
        linear = [c for c in linear if c.name != "compiled_normalize_sum"]
    quadratic = [c for c in MOMENTS if c.full_matrix or c.name == OURS]
    rows: list[Row] = []
    for dtype in ("float32", "bfloat16", "float16"):
        if not options.only_ours:
            rows += [_isotropic(*large, dtype, options)]
        rows += compare(*large, dtype, linear, options)
    rows += compare(*scaling, "float32", linear[:1], options)
    if not options.only_ours:
        rows += compare(*full_matrix, "float32", quadratic, options)
    return rows


def _isotropic(n: int, d: int, dtype: str, options: Options) -> Row:
    """The error where the mean is zero up to chance and nothing but rounding is left of it."""
    options.say(f"moments: error of {n:,} isotropic rows of {d} {dtype}")
    rows = inputs.make(n, d, dtype, "isotropic")
    use_threads(options.most_threads)
    error = error_of_mean(MOMENTS[0].call(rows), inputs.exact_mean_cosine(rows), "isotropic")
    return row("moments", OURS, "cpu", (n, d, dtype), options.most_threads, None, kind="isotropic", error=error)


def compare(n: int, d: int, dtype: str, contenders: list[Contender], options: Options) -> list[Row]:
    """Contenders and readers in turns: ours and the readers with each number of threads, the others with the most."""
    size = (n, d, dtype)
    contenders = skip_missing([c for c in contenders if dtype in c.dtypes], options)
    names = [c.name for c in contenders]
    options.say(f"moments: {n:,} × {d} {dtype}: {', '.join(names)}")
    most = options.most_threads
    # Before the rows are made here: they would be in memory twice.
    memory = options.peaks("moments", names, n, d, dtype)
    rows = inputs.make(n, d, dtype)
    use_threads(most)
    exact = inputs.exact_mean_cosine(rows)
    errors = {c.name: error_of_mean(c.call(rows), exact, "drifted") for c in contenders}
    timings = _time(rows, contenders, options)

    out: list[Row] = []
    for threads in options.threads:
        read = {
            name: t for (name, with_threads), t in timings.items() if with_threads == threads and name[:4] == "read"
        }
        limit, ours = limits.fastest(read), timings[OURS, threads].p50
        for name, timing in read.items():
            out.append(row("read", name, "torch", size, threads, timing, limit=limit, ours=ours))
        for c in contenders:
            if (c.name, threads) not in timings:
                continue
            backend, timing = ("cpu" if c.name == OURS else c.package), timings[c.name, threads]
            last: dict[str, Any] = {"peak_mib": memory.get(c.name), "error": errors[c.name]} if threads == most else {}
            out.append(row("moments", c.name, backend, size, threads, timing, limit=limit, ours=ours, **last))
    return out


def _time(rows: Tensor, contenders: list[Contender], options: Options) -> dict[tuple[str, int], Timing]:
    calls = {}
    for threads in options.threads:
        for name, call in limits.readers(rows).items():
            calls[name, threads] = call
        for c in contenders:
            if c.name == OURS or threads == options.most_threads:
                calls[c.name, threads] = functools.partial(c.call, rows)
    slow = any(c.full_matrix for c in contenders)
    return interleave(
        calls,
        before=lambda key: use_threads(key[1]),
        seconds=20 if len(contenders) > 1 else 10,
        rounds=options.rounds(fewest=3 if slow else 5),
    )
