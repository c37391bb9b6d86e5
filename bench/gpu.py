"""One command on a GPU: the kernels are checked against float64, then timed against the GPU's own limits.

Runs with torch, triton and NumPy alone, in under eight minutes. Rows go to the folder $OUT, or to ``bench/results``.
Not yet run on a GPU.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import triton

ROOT = Path(__file__).resolve().parents[1]
# At the end: an installed fastaniso comes first, and tests/triton must not be found as the package triton.
sys.path += [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "triton")]

import attention_checks  # noqa: E402
import checks  # noqa: E402
import pair_checks  # noqa: E402
from cases import CASES, DTYPES, make  # noqa: E402

from bench import gpu_attention, gpu_linear, gpu_pairs  # noqa: E402
from bench.gpu_tools import show  # noqa: E402
from bench.harness import Row, append  # noqa: E402

GRAM_CASES = (
    *("collapsed", "drifted", "one_huge_dimension", "nan_row", "all_invalid", "tiny_norms", "subnormal", "huge_norms"),
    *("mixed_norms", "squares_overflow_half", "n_0", "n_1", "n_2", "odd_d", "masked"),
)
"""Every width is compiled for, which takes seconds in ``gram``: tests/triton/test_gpu.py runs all cases."""

WIDTHS = ((4096, 384), (4097, 768), (4000, 1000), (4096, 4096))
BENCHMARKS = (
    *((gpu_linear.bench_moments, size) for size in gpu_linear.MOMENTS_SIZES),
    *((gpu_pairs.bench_pairs, size) for size in gpu_pairs.SIZES),
    *((gpu_pairs.bench_neighbors, size) for size in gpu_pairs.NEIGHBOR_SIZES),
    *((gpu_linear.bench_gram, size) for size in gpu_linear.GRAM_SIZES),
    *((gpu_attention.bench_attention, (shape,)) for shape in gpu_attention.SHAPES),
)
EXPLORE_UNTIL = 360
"""Seconds from the start after which there is no time to look at other shapes."""


def check() -> int:
    """Every op × dtype × case against float64; the number of failures."""
    failures = 0

    def attempt(name: str, call: Callable[[], None]) -> None:
        nonlocal failures
        try:
            call()
        except Exception as error:  # whatever one kernel does, the others are looked at
            failures += 1
            print(f"FAILED {name}: {type(error).__name__}: {str(error)[-2000:]}", flush=True)

    for dtype in DTYPES:
        for case in CASES:
            rows, mask = make(case, dtype)
            hidden, mask = rows[None], None if mask is None else mask[None]
            groups = checks.some_groups(hidden, 3)
            attempt(f"moments {dtype} {case}", lambda h=hidden, m=mask: checks.check_moments(h, m, "cuda"))
            attempt(
                f"group_moments {dtype} {case}",
                lambda h=hidden, m=mask, g=groups: checks.check_group_moments(h, m, g, 3, "cuda"),
            )
            if case in GRAM_CASES:
                attempt(f"gram {dtype} {case}", lambda h=hidden, m=mask: checks.check_gram(h, m, "cuda"))
            attempt(f"pairs {dtype} {case}", lambda h=hidden, m=mask: pair_checks.check_pairs(h, m, "cuda"))
            attempt(f"neighbors {dtype} {case}", lambda h=hidden, m=mask: pair_checks.check_neighbors(h, m, 10, "cuda"))
        rows, mask = make("masked", dtype)
        hidden, mask = checks.two_axes(rows, mask)
        groups = checks.some_groups(hidden, 3)
        attempt(f"moments {dtype} at two strides", lambda h=hidden, m=mask: checks.check_moments(h, m, "cuda"))
        attempt(f"gram {dtype} at two strides", lambda h=hidden, m=mask: checks.check_gram(h, m, "cuda"))
        attempt(f"same bits {dtype}", lambda h=hidden, m=mask, g=groups: checks.check_same_bits(h, m, g, 3, "cuda"))
        hidden = torch.randn(1, 3000, 768, generator=torch.Generator().manual_seed(1)).to(DTYPES[dtype])
        attempt(f"moments {dtype} d = 768", lambda h=hidden: checks.check_moments(h, None, "cuda"))
        attempt(f"gram {dtype} d = 768", lambda h=hidden: checks.check_gram(h, None, "cuda"))
        check_pairs(dtype, attempt)
        for name, call in attention_checks.all_checks(DTYPES[dtype], "cuda").items():
            if dtype in ("f32", "bf16") or name in attention_checks.BRIEF:
                attempt(f"attention {dtype} {name}", call)
        print(f"  {dtype} checked", flush=True)
    attempt("offsets beyond int32", lambda: checks.check_beyond_int32("cuda"))
    attempt("offsets of pairs beyond int32", lambda: pair_checks.check_beyond_int32("cuda"))
    attempt("offsets of attention beyond int32", lambda: attention_checks.check_beyond_int32("cuda"))
    return failures


def check_pairs(dtype: str, attempt: Callable[[str, Callable[[], None]], None]) -> None:
    """All pairs of thousands of rows, ragged, with zero rows; of two sets; parts against the whole; same bits."""
    for n, dim in WIDTHS:
        hidden = (torch.randn(1, n, dim, generator=torch.Generator().manual_seed(dim)) + 0.1).to(DTYPES[dtype])
        hidden[0, ::701] = 0
        attempt(f"pairs {dtype} {n} × {dim}", lambda h=hidden: pair_checks.check_pairs(h, None, "cuda"))
        attempt(f"neighbors {dtype} {n} × {dim}", lambda h=hidden: pair_checks.check_neighbors(h, None, 10, "cuda"))
    hidden, other = hidden[:, :1500, :96].contiguous(), hidden[:, 700:2000, 50:146].contiguous()
    attempt(f"pairs {dtype} of two sets", lambda: pair_checks.check_pairs(hidden, None, "cuda", other=other))
    attempt(f"parts of pairs {dtype}", lambda: pair_checks.check_parts(hidden, None, "cuda"))
    attempt(f"exact pairs {dtype}", lambda: pair_checks.check_exact(1000, DTYPES[dtype], "cuda"))
    attempt(f"same bits of pairs {dtype}", lambda: pair_checks.check_same_bits(hidden, None, "cuda"))


def registers() -> None:
    """Registers and spills of what has run, to hold against the figures of the compile tests."""
    for module in (
        "moments",
        "gram",
        "norms",
        "columns",
        "panels",
        "pair_sums",
        "extrema",
        "neighbors",
        "score_tiles",
        "score_rows",
    ):
        for name, kernel in vars(sys.modules[f"fastaniso.ops.triton.{module}"]).items():
            if not name.endswith("_kernel") or kernel.fn.__module__ != f"fastaniso.ops.triton.{module}":
                continue
            for compiled in kernel.device_caches[torch.cuda.current_device()][0].values():
                used, spilled = getattr(compiled, "n_regs", None), getattr(compiled, "n_spills", None)
                print(f"  {name}: {used} registers, {spilled} spills, {compiled.metadata.shared} B shared")


def main() -> int:
    started = time.perf_counter()

    def passed() -> float:
        return time.perf_counter() - started

    print(f"python {platform.python_version()}, torch {torch.__version__}, triton {triton.__version__}")
    if not torch.cuda.is_available():
        print("no CUDA or ROCm device on this machine; the kernels are tested without one by tests/triton")
        return 1
    print(f"{torch.cuda.get_device_name()}, capability {torch.cuda.get_device_capability()}", flush=True)
    failures = check()
    print(f"correctness: {failures} failures after {passed():.0f} s", flush=True)
    rows: list[Row] = []
    try:
        for bench, size in BENCHMARKS:
            rows += (made := bench(*size))
            show(made)
        registers()
        if passed() < EXPLORE_UNTIL:
            gpu_pairs.explore()
    finally:
        for path in append(rows, Path(os.environ.get("OUT") or ROOT / "bench" / "results")):
            print(f"rows in {path}")
        print(f"{passed():.0f} s in all")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
