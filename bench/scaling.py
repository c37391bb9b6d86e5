"""``scaling``: the histogram of all pairs over growing n, each contender as far as time and memory go.

One after another rather than in turns, because the largest calls take a minute: a picture of orders of magnitude.
"""

from __future__ import annotations

import time

from torch import Tensor

from bench import inputs
from bench.baselines import PAIRS, Contender
from bench.harness import OURS, Row, Timing
from bench.machine import use_threads
from bench.memory import MEASURABLE, peak_of
from bench.options import Options, row, skip_missing

D = 384
SIZES = (2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000)
QUICK = (300, 600)
NAMES = (
    *(OURS, "torch_tiles_512", "torch_chunks", "torchmetrics_full_matrix"),
    *("numpy_chunks", "sklearn_chunks", "scipy_pdist"),
)
OURS_SECONDS, SECONDS, MIB = 150.0, 30.0, 8_192.0
"""What a call may be expected to take, by its last one and the growth of n²."""
REPEATS, LONG = 3, 2.0
"""Calls at a size, and the seconds from which there is one."""
_FEW = 300  # rows of a call that loads libraries


def run(options: Options) -> list[Row]:
    """A row a size and contender, with the memory of a call."""
    threads = options.most_threads
    use_threads(threads)
    running = skip_missing([c for c in PAIRS if c.name in NAMES], options)
    out: list[Row] = []
    for n in QUICK if options.quick else SIZES:
        running = [c for c in running if _is_worth_it(c, n, out)]
        options.say(f"scaling: {n:,} × {D} float32: {', '.join(c.name for c in running)}")
        rows = inputs.make(n, D, "float32")
        measured = {c.name: _measure(c, rows, 0 if options.quick else 0.1) for c in running}
        out += [
            row(
                "scaling", c.name, c.backend, (n, D, "float32"), threads, timing,
                operations=n * (n - 1) * D, ours=measured[OURS][0].p50 if OURS in measured else None, peak_mib=peak,
            )
            for c in running
            for timing, peak in (measured[c.name],)
        ]  # fmt: skip
    return out


def _is_worth_it(contender: Contender, n: int, before: list[Row]) -> bool:
    last = next((row for row in reversed(before) if row.contender == contender.name), None)
    if last is None or last.p50_ms is None:
        return True
    growth = (n / last.n) ** 2
    seconds = OURS_SECONDS if contender.name == OURS else SECONDS
    return growth * last.p50_ms < 1e3 * seconds and growth * (last.peak_mib or 0) < MIB


def _measure(contender: Contender, rows: Tensor, settle: float) -> tuple[Timing, float | None]:
    seconds: list[float] = []

    def call() -> None:
        time.sleep(settle)  # threads of the last call stop spinning
        start = time.perf_counter()
        contender.call(rows)
        seconds.append(time.perf_counter() - start)

    def load() -> None:
        contender.call(rows[:_FEW])

    peak = peak_of(call, warm=load) if MEASURABLE else None
    while len(seconds) < (REPEATS if not seconds or max(seconds) < LONG else 1):
        call()
    return Timing.of(seconds), peak
