"""``pairs``: share of half the sgemm time of n² d, histogram alone and everything, against what users write."""

from __future__ import annotations

import functools

from bench import inputs
from bench.baselines import BINS, PAIRS, error_of_histogram
from bench.harness import OURS, Row
from bench.options import Options
from bench.visits import Visit, compare, memory_of

MAIN = (10_000, 768)
LARGE = (20_000, 768)
NARROW = ((10_000, 384), (20_000, 384))
FEW, FEWER = (2_000, 768), (1_000, 768)
WIDE = (4_096, 4096)
MEMORY = (40_000, 768)
SIZES = (
    (*MAIN, "float32"),
    (*MAIN, "bfloat16"),
    (*MAIN, "float16"),
    *((*size, "float32") for size in (LARGE, *NARROW, FEW, FEWER, WIDE)),
)
LONG = (LARGE, FEWER)
"""Sizes with calls of seconds, timed in fewer rounds."""
QUICK = ((500, 64, "float32"), (500, 64, "bfloat16"))
EVERYTHING = f"{OURS}_everything"
SLOW_TO_COMPILE = "keops_one_hot"

VISIT = Visit("pairs", PAIRS, functools.partial(inputs.exact_histogram, bins=BINS), error_of_histogram)


def run(options: Options) -> list[Row]:
    """All sizes and dtypes; memory at two, to show that it does not grow."""
    if options.quick:
        few = [c for c in PAIRS if c.name != SLOW_TO_COMPILE]
        return [row for size in QUICK for row in compare(VISIT, size, options, contenders=few, memory=True)]
    out: list[Row] = []
    for size in SIZES[:1] if options.only_ours else SIZES:
        out += compare(VISIT, size, options, memory=size == SIZES[0], fewest=4 if size[:2] in LONG else 7)
    return out if options.only_ours else out + memory_of(VISIT, (*MEMORY, "float32"), options)
