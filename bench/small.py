"""Latency: what a call costs where there is next to nothing to compute."""

from __future__ import annotations

import subprocess
import sys
import time

import torch

import fastaniso
from bench import inputs
from bench.baselines import normalize_sum
from bench.harness import OURS, Row, Timing
from bench.machine import use_threads
from bench.options import Options, row

SHAPES = ((1, 768), (2, 8), (32, 768), (128, 768), (1000, 64), (99, 1000))
"""All of n·d < 10⁵."""

IMPORT = "import fastaniso, after torch"


def run(options: Options) -> list[Row]:
    """Every shape as a tensor and as a NumPy array; single calls, because latency is one call's."""
    options.say(f"small: {', '.join(f'{n}×{d}' for n, d in SHAPES)}")
    use_threads(options.most_threads)
    out: list[Row] = []
    for n, d in SHAPES:
        rows = inputs.make(n, d, "float32")
        array = rows.numpy()
        calls = {
            OURS: (lambda: fastaniso.mean_cosine(rows), "cpu"),  # noqa: B023 (called before the next shape)
            "fastaniso of an array": (lambda: fastaniso.mean_cosine(array), "cpu"),  # noqa: B023
            "normalize_sum": (lambda: normalize_sum(rows), "torch"),  # noqa: B023
        }
        if n < 2:
            del calls["normalize_sum"]  # it divides by n − 1
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(5 if options.quick else 60):
            for name, (call, _) in calls.items():
                for _ in range(20):
                    start = time.perf_counter()
                    call()
                    if turn:
                        samples[name].append(time.perf_counter() - start)
        timings = {name: Timing.of(some) for name, some in samples.items()}
        size = (n, d, str(rows.dtype).removeprefix("torch."))
        out += [
            row("small", name, calls[name][1], size, torch.get_num_threads(), timing, ours=timings[OURS].p50)
            for name, timing in timings.items()
        ]
    return [*out, row("small", IMPORT, "", (0, 0, "float32"), None, _import_time(5 if options.quick else 15))]


def _import_time(repeats: int) -> Timing:
    """Seconds that ``import fastaniso`` adds to a process that has imported torch."""
    code = "import time, torch; start = time.perf_counter(); import fastaniso; print(time.perf_counter() - start)"
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(repeats)
    ]
    return Timing.of(seconds)
