"""What the model of scaling has to know of a machine: `python -m bench.scaling_rates` measures it and prints it.

R, e and c are fitted to CPU times of `pairs` alone, on one thread, over triangles and rectangles of rows (least squares
of the relative errors); r is a call on 64 rows by one rank, and s what a call by two takes beyond their three rounds;
the link and q are of 12 MB sent each way between two ranks that do nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from bench import inputs, ranks
from bench.group import on_ranks
from bench.machine import use_threads
from fastaniso.ops import dispatch
from fastaniso.rows import Rows, as_rows
from fastaniso.state import Pairs

SIZES = (750, 1_500, 3_000, 6_000, 12_000)
FEW_ROWS, BYTES = 64, 12_288_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling_rates", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: that it runs, not how fast")
    quick = parser.parse_args().quick
    rate, per_pair, per_number, off = kernel(SIZES[:2] if quick else SIZES)
    print(f"R = {rate / 1e9:.1f}·10⁹ a second, e = {per_pair * 1e9:.2f} ns, c = {per_number * 1e9:.2f} ns")
    print(f"the fit is off by {off:.1%} at most")
    one_round, step = small_calls(3 if quick else 50)
    print(f"r = {one_round * 1e3:.2f} ms, s = {step * 1e3:.2f} ms")
    seconds, cpu = sent(BYTES // 100 if quick else BYTES)
    print(f"link {1 / seconds / 1e9:.2f} GB/s, 1/q = {1 / cpu / 1e9:.2f} GB/s")


def kernel(sizes: tuple[int, ...]) -> tuple[float, float, float, float]:
    """R, e and c, and the largest relative error of the fit."""
    use_threads(1)
    terms, taken = [], []
    for d in (384, 768):
        for n in sizes:
            rows, others = as_rows(inputs.make(n, d, "float32")), as_rows(inputs.make(n // 2, d, "float32"))
            for other, pairs, numbers in ((None, n * (n - 1) / 2, 2 * n * d), (others, n * (n // 2), 1.5 * n * d)):
                terms.append((pairs * d, pairs, numbers))
                rounds = 3 if n > 3_000 else 15
                taken.append(_cpu_time(partial(_all_of, rows, other), rounds))
    weighted = np.array(terms) / np.array(taken)[:, None]
    inverse, per_pair, per_number = np.linalg.lstsq(weighted, np.ones(len(taken)), rcond=None)[0]
    return 1 / inverse, per_pair, per_number, float(abs(weighted @ (inverse, per_pair, per_number) - 1).max())


def small_calls(rounds: int) -> tuple[float, float]:
    """r and s."""
    asked = [["pairs", FEW_ROWS, 768, rounds, [[FEW_ROWS], [FEW_ROWS // 2] * 2]]]
    one, two = (statistics.median(share["wall"]) for share in on_ranks(ranks.measure, 2, asked=asked)[0][0])
    return one, max(two - 3 * one, 0.0)


def sent(size: int) -> tuple[float, float]:
    """Seconds, and seconds of a rank's core, for a byte: of one way's bytes, and of those of both ways."""
    found = on_ranks(ranks.send, 2, size=size)
    return found[0][0] / size, statistics.mean(cpu for _, cpu in found) / (2 * size)


def _all_of(rows: Rows, other: Rows | None) -> Pairs:
    """As ranks do it: all that `pairs` takes from the cosines."""
    return dispatch.pairs(rows, other, bins=2048, uniformity_t=(2.0,), backend="cpu")


def _cpu_time(call: Callable[[], object], rounds: int) -> float:
    call()
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
