"""``attention``: share of the time of its products and exponentials alone, and against what users write in torch."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from bench import inputs
from bench.baselines.attention import (
    ATTENTION,
    BLOCK,
    CAUSAL_ATTENTION,
    HEADS,
    error_of_attention,
    exact_attention,
    heads_of,
)
from bench.harness import OURS, Row, interleave
from bench.machine import use_threads
from bench.options import Options, row, skip_missing

KIND = "isotropic"  # scores of a standard deviation of about one, as of layers that were just initialised
MAIN = (HEADS * 2048, 64)
SIZES = (
    (*MAIN, "float32"),
    (*MAIN, "bfloat16"),
    (HEADS * 2048, 128, "float32"),
    (HEADS * 512, 64, "float32"),
    (HEADS * 128, 64, "float32"),
)
QUICK = ((HEADS * 50, 16, "float32"),)
MEMORY = (HEADS * 8192, 64, "float32")


def run(options: Options) -> list[Row]:
    """All sizes; memory at two, to show that it does not grow with their product."""
    sizes = QUICK if options.quick else SIZES[:1] if options.only_ours else SIZES
    out: list[Row] = []
    for size in sizes:
        out += _compare("attention", size, options, memory=size == sizes[0])
    out += _compare("attention_causal", sizes[0], options)
    if not options.quick and not options.only_ours:
        peaks = options.peaks("attention", [OURS], *MEMORY)
        out += [
            row("attention", OURS, "cpu", MEMORY, options.most_threads, None, peak_mib=peak, kind=KIND)
            for peak in peaks.values()
        ]
    return out


def _compare(op: str, size: tuple[int, int, str], options: Options, *, memory: bool = False) -> list[Row]:
    """In turns: fastaniso and the limits with each number of threads, the others with the most, every third round."""
    n, d, dtype = size
    causal = op.endswith("causal")
    contenders = skip_missing(CAUSAL_ATTENTION if causal else ATTENTION, options)
    contenders = [c for c in contenders if c.name == OURS or not options.only_ours]
    options.say(f"{op}: {HEADS} heads of {n // HEADS:,} × {d} {dtype}: {', '.join(c.name for c in contenders)}")
    peaks = options.peaks(op, [c.name for c in contenders], n, d, dtype) if memory else {}
    rows = inputs.make(n, d, dtype, KIND)
    products = limits(rows)
    calls: dict[tuple[str, int], Callable[[], object]] = {}
    results: dict[str, Tensor] = {}
    for threads in options.threads:
        calls |= {(name, threads): call for name, call in products.items()}
        for c in contenders:
            if c.name == OURS or threads == options.most_threads:
                calls[c.name, threads] = functools.partial(_keep, results, c.name, c.call, rows)
    timings = interleave(
        calls,
        before=lambda key: use_threads(key[1]),
        rounds=options.rounds(fewest=5, most=15),
        seldom={key for key in calls if key[0] not in products and key[0] != OURS},
        settle=0 if options.quick else 0.1,
    )
    use_threads(options.most_threads)
    exact = exact_attention(rows, causal=causal)
    scores, block = n * n // HEADS / (2 if causal else 1), min(BLOCK, n // HEADS)
    out = []
    for threads in options.threads:
        limit = sum(timings[name, threads].p50 for name in products) / (block * n // HEADS) * scores
        for name in products:
            timing = timings[name, threads]
            out.append(row("attention_limit", name, "torch", (block, d, "float32"), threads, timing, kind=KIND))
        for c in contenders:
            if (c.name, threads) not in timings:
                continue
            last = threads == options.most_threads
            timing = timings[c.name, threads]
            out.append(
                row(
                    op, c.name, c.backend, size, threads, timing,
                    operations=2 * scores * d, limit=limit, ours=timings[OURS, threads].p50, kind=KIND,
                    peak_mib=peaks.get(c.name) if last else None,
                    error=error_of_attention(results[c.name], exact) if last else None,
                )
            )  # fmt: skip
    return out


def limits(rows: Tensor) -> dict[str, Callable[[], object]]:
    """What cannot be saved of ``BLOCK`` queries' scores: their product with all keys, and one exponential each.

    Into arrays that are already there and that fit the caches.
    """
    queries, keys = (vectors[0, 0].float().contiguous() for vectors in heads_of(rows))
    scores = torch.empty(min(BLOCK, len(queries)), len(keys))
    weights = torch.randn_like(scores).abs().neg()
    return {
        "sgemm: torch": lambda: torch.mm(queries[:BLOCK], keys.T, out=scores),
        "exp: torch": lambda: torch.exp(weights, out=scores),
    }


def _keep(results: dict[str, Tensor], name: str, call: Callable[[Tensor], Tensor], rows: Tensor) -> None:
    results[name] = call(rows)
