"""``gram``: share of half the sgemm time, against ssyrk and what users write."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

from bench import inputs, limits
from bench.baselines import GRAM, Contender, error_of_matrix
from bench.harness import Row, Timing, interleave
from bench.machine import use_threads
from bench.options import Options, row, skip_missing

MAIN = (50_000, 768)
SIZES = (
    (*MAIN, "float32"),
    (*MAIN, "bfloat16"),
    (*MAIN, "float16"),
    (50_000, 384, "float32"),
    (4_096, 4096, "float32"),
)
QUICK = ((2_000, 64, "float32"), (2_000, 64, "bfloat16"))
EVERY_THREADS = ("fastaniso", "fastaniso_raw", "ssyrk")
"""Contenders timed with each number of threads; the others with the most."""


def run(options: Options) -> list[Row]:
    """All sizes and dtypes."""
    contenders = [c for c in GRAM if c.name in EVERY_THREADS or not options.only_ours]
    out: list[Row] = []
    sizes = QUICK if options.quick else [size for size in SIZES if size[:2] == MAIN or not options.only_ours]
    for size in sizes:
        out += compare(size, contenders, options)
    return out


def compare(size: tuple[int, int, str], contenders: list[Contender], options: Options) -> list[Row]:
    """Contenders and general products in turns; ``share_of_limit`` is of half the fastest general product's time."""
    n, d, dtype = size
    contenders = skip_missing([c for c in contenders if dtype in c.dtypes], options)
    names = [c.name for c in contenders]
    options.say(f"gram: {n:,} × {d} {dtype}: {', '.join(names)}")
    most = options.most_threads
    memory = options.peaks("gram", names, n, d, dtype)
    rows = inputs.make(n, d, dtype)
    use_threads(most)
    errors = _errors(rows, contenders)
    timings = _time(rows, contenders, options)

    triangle = n * d * (d + 1)
    out: list[Row] = []
    for threads in options.threads:
        sgemm = {
            name: t for (name, with_threads), t in timings.items() if with_threads == threads and name[:5] == "sgemm"
        }
        limit, ours = limits.fastest(sgemm) / 2, timings["fastaniso", threads].p50
        for name, timing in sgemm.items():
            backend = "torch" if name.endswith("torch") else "scipy"
            in_float32 = (n, d, "float32")
            out.append(row("sgemm", name, backend, in_float32, threads, timing, operations=2 * n * d * d, ours=ours))
        for c in contenders:
            if (c.name, threads) not in timings:
                continue
            backend = "cpu" if c.package == "fastaniso" else c.package
            last: dict[str, Any] = {"peak_mib": memory.get(c.name), "error": errors[c.name]} if threads == most else {}
            timing = timings[c.name, threads]
            out.append(
                row("gram", c.name, backend, size, threads, timing, operations=triangle, limit=limit, ours=ours, **last)
            )
    return out


def _errors(rows: Tensor, contenders: list[Contender]) -> dict[str, float]:
    errors: dict[str, float] = {}
    for unit in (True, False):
        exact = inputs.exact_second_moment(rows, unit=unit)
        errors |= {c.name: error_of_matrix(c.call(rows), exact) for c in contenders if c.normalised == unit}
    return errors


def _time(rows: Tensor, contenders: list[Contender], options: Options) -> dict[tuple[str, int], Timing]:
    calls = {}
    for threads in options.threads:
        for name, call in limits.products(rows).items():
            calls[name, threads] = call
        for c in contenders:
            if c.name in EVERY_THREADS or threads == options.most_threads:
                calls[c.name, threads] = functools.partial(c.call, rows)
    return interleave(calls, before=lambda key: use_threads(key[1]), seconds=10, rounds=options.rounds(most=15))
