"""The catalogue: IsoScore beside its package, and all metrics at once beside the passes that they need."""

from __future__ import annotations

import functools
import time

from bench import inputs
from bench.baselines import DESCRIBE, ISOSCORE, exact_isoscore
from bench.harness import OURS, Row, Timing, interleave
from bench.machine import use_threads
from bench.options import Options, row, skip_missing

ISOSCORE_SIZE = (20_000, 768)
MEMORY = (10_000, 768)
EVERYTHING = (100_000, 768)


def run(options: Options) -> list[Row]:
    """IsoScore in turns; everything once, a minute and more, with its passes before it."""
    use_threads(options.most_threads)
    return _isoscore((500, 64) if options.quick else ISOSCORE_SIZE, options) + (
        _everything((500, 16), options) if options.quick else _memory(options) + _everything(EVERYTHING, options)
    )


def _isoscore(shape: tuple[int, int], options: Options) -> list[Row]:
    size = (*shape, "float32")
    contenders = skip_missing(ISOSCORE, options)
    options.say(f"isoscore: {shape[0]:,} × {shape[1]}: {', '.join(c.name for c in contenders)}")
    rows = inputs.make(*size)
    peaks = options.peaks("isoscore", [c.name for c in contenders], *size)
    timings = interleave({c.name: functools.partial(c.call, rows) for c in contenders}, rounds=options.rounds())
    exact = exact_isoscore(rows)
    return [
        row(
            "isoscore", c.name, c.backend, size, options.most_threads, timings[c.name], ours=timings[OURS].p50,
            peak_mib=peaks.get(c.name), error=abs(c.call(rows) / exact - 1),
        )
        for c in contenders
    ]  # fmt: skip


def _everything(shape: tuple[int, int], options: Options) -> list[Row]:
    """Calls of a minute: once each, and one of few rows before, so that nothing is loaded in them."""
    size = (*shape, "float32")
    options.say(f"describe: {shape[0]:,} × {shape[1]}: {', '.join(c.name for c in DESCRIBE)}")
    rows = inputs.make(*size)
    taken = {}
    for c in reversed(DESCRIBE):
        c.call(rows[:1000])
        began = time.perf_counter()
        c.call(rows)
        taken[c.name] = Timing.of([time.perf_counter() - began])
    return [
        row("describe", c.name, c.backend, size, options.most_threads, taken[c.name], ours=taken[OURS].p50)
        for c in DESCRIBE
    ]


def _memory(options: Options) -> list[Row]:
    size = (*MEMORY, "float32")
    options.say(f"describe: memory at {size[0]:,} × {size[1]}")
    return [
        row("describe", name, "cpu", size, options.most_threads, None, peak_mib=peak)
        for name, peak in options.peaks("describe", [OURS], *size).items()
    ]
