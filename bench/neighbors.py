"""``neighbors``: share of half the sgemm time of n² d for the ten nearest, and the intrinsic dimension from two."""

from __future__ import annotations

import functools

from bench import inputs
from bench.baselines import NEIGHBORS, TWO_NN, K, error_of_neighbors
from bench.harness import Row
from bench.options import Options
from bench.visits import Visit, compare, memory_of

MAIN = (10_000, 768)
LARGE = (20_000, 768)
MEMORY = (40_000, 768)
SIZES = (
    (*MAIN, "float32"),
    (*MAIN, "bfloat16"),
    (*MAIN, "float16"),
    (*LARGE, "float32"),
    (10_000, 384, "float32"),
)
QUICK = ((500, 64, "float32"), (500, 64, "bfloat16"))

VISIT = Visit("neighbors", NEIGHBORS, functools.partial(inputs.exact_nearest, k=K), error_of_neighbors)
DIMENSION = Visit("two_nn", TWO_NN, inputs.exact_two_nn, lambda given, exact: abs(given / exact - 1), LARGE[0])


def run(options: Options) -> list[Row]:
    """All sizes and dtypes, memory at two, and ``two_nn``."""
    sizes = QUICK if options.quick else SIZES[:1] if options.only_ours else SIZES
    out: list[Row] = []
    for size in sizes:
        out += compare(VISIT, size, options, memory=size == sizes[0], fewest=4 if size[:2] == LARGE else 7)
    if options.quick:
        return out + compare(DIMENSION, QUICK[0], options)
    if not options.only_ours:
        out += memory_of(VISIT, (*MEMORY, "float32"), options)
        out += compare(DIMENSION, (*LARGE, "float32"), options, fewest=4)
    return out
