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
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
# At the end: an installed fastaniso comes first, and tests/triton must not be found as the package triton.
sys.path += [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "triton")]

import checks  # noqa: E402
from cases import CASES, DTYPES, make  # noqa: E402

from bench.harness import OURS, Row, Timing, append  # noqa: E402
from fastaniso.ops import triton as kernels  # noqa: E402

GRAM_CASES = (
    *("collapsed", "drifted", "one_huge_dimension", "nan_row", "all_invalid", "tiny_norms", "subnormal", "huge_norms"),
    *("mixed_norms", "squares_overflow_half", "n_0", "n_1", "n_2", "odd_d", "masked"),
)
"""Every width is compiled for, which takes seconds in ``gram``: tests/triton/test_gpu.py runs all cases."""

MOMENTS_SIZES = (
    (1_000_000, 768, torch.bfloat16),
    (1_000_000, 768, torch.float16),
    (1_000_000, 768, torch.float32),
    (400_000, 4096, torch.bfloat16),
    (65_536, 768, torch.bfloat16),
)
GRAM_SIZES = (
    (1_000_000, 768, torch.bfloat16),
    (262_144, 4096, torch.bfloat16),
    (1_000_000, 768, torch.float16),
    (1_000_000, 768, torch.float32),
)
ROUNDS = 15


@triton.jit
def read_kernel(values, found, words, BLOCK: tl.constexpr, STEPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Read STEPS blocks of int32 and keep their largest: the read bandwidth, with next to nothing computed."""
    largest = tl.full((BLOCK,), -(2**31), tl.int32)
    for step in tl.static_range(STEPS):
        place = (tl.program_id(0).to(tl.int64) * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.load(values + place, mask=place < words, other=0))
    tl.store(found + tl.program_id(0), tl.max(largest, axis=0))


def read_all(rows: Tensor) -> None:
    words = rows.view(-1).view(torch.int32)
    block, steps = 4096, 8
    programs = triton.cdiv(words.numel(), block * steps)
    found = torch.empty(programs, dtype=torch.int32, device=rows.device)
    read_kernel[(programs,)](words, found, words.numel(), BLOCK=block, STEPS=steps, num_warps=8)


def check() -> int:
    """Every op × dtype × case against float64; the number of failures."""
    failures = 0

    def attempt(name: str, call: Callable[[], None]) -> None:
        nonlocal failures
        try:
            call()
        except AssertionError as error:
            failures += 1
            print(f"FAILED {name}: {error}", flush=True)

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
        rows, mask = make("masked", dtype)
        hidden, mask = checks.two_axes(rows, mask)
        groups = checks.some_groups(hidden, 3)
        attempt(f"moments {dtype} at two strides", lambda h=hidden, m=mask: checks.check_moments(h, m, "cuda"))
        attempt(f"gram {dtype} at two strides", lambda h=hidden, m=mask: checks.check_gram(h, m, "cuda"))
        attempt(f"same bits {dtype}", lambda h=hidden, m=mask, g=groups: checks.check_same_bits(h, m, g, 3, "cuda"))
        hidden = torch.randn(1, 3000, 768, generator=torch.Generator().manual_seed(1)).to(DTYPES[dtype])
        attempt(f"moments {dtype} d = 768", lambda h=hidden: checks.check_moments(h, None, "cuda"))
        attempt(f"gram {dtype} d = 768", lambda h=hidden: checks.check_gram(h, None, "cuda"))
        print(f"  {dtype} checked", flush=True)
    attempt("offsets beyond int32", lambda: checks.check_beyond_int32("cuda"))
    return failures


def timed(calls: dict[str, Callable[[], object]]) -> dict[str, Timing]:
    """Calls in turns, each between two events; compiled and allocated before."""
    for call in calls.values():
        for _ in range(2):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            seconds[name].append(start.elapsed_time(end) / 1e3)
    return {name: Timing.of(samples) for name, samples in seconds.items()}


def peak_mib(call: Callable[[], object]) -> float:
    """Memory of one call beside what is resident."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def some_rows(n: int, dim: int, dtype: torch.dtype) -> Tensor:
    """(1, n, dim) rows around a mean of their own size, made a block at a time."""
    generator = torch.Generator("cuda").manual_seed(0)
    offset = torch.randn(dim, generator=generator, device="cuda")
    rows = torch.empty(1, n, dim, dtype=dtype, device="cuda")
    for block in rows[0].split(1 << 16):
        block.copy_(torch.randn(block.shape, generator=generator, device="cuda") + offset)
    return rows


def exact(rows: Tensor, *, unit: bool, product: bool) -> Tensor:
    """Σu, or the central scatter of x or u, in float64 a block at a time."""
    n, dim = rows.shape
    mean, total = (torch.zeros(s, dtype=torch.float64, device=rows.device) for s in (dim, (dim, dim)))
    for centred in (False, True) if product else (False,):
        for block in rows.split(1 << 15):
            values = block.double()
            if unit:
                values /= torch.linalg.vector_norm(values, dim=1, keepdim=True)
            if centred:
                total.addmm_((values - mean).T, values - mean)
            else:
                mean += values.sum(0) / n
    return total if product else mean * n


def mean_cosine(unit_sum: Tensor, unit_squared: Tensor | float, n: int) -> float:
    return float((unit_sum.double().square().sum() - unit_squared) / (n * (n - 1)))


def row(op: str, contender: str, size: tuple[int, int, torch.dtype], timing: Timing, **more: float | None) -> Row:
    n, dim, dtype = size
    bytes_read = n * dim * dtype.itemsize
    major, minor = torch.cuda.get_device_capability()
    return Row(
        op,
        contender,
        "triton" if contender.startswith(OURS) else "torch",
        torch.cuda.get_device_properties(0).gcnArchName if torch.version.hip else f"sm_{major}{minor}",
        n,
        dim,
        str(dtype).removeprefix("torch."),
        None,
        "drifted",
        **timing.columns(),
        gb_per_s=bytes_read / timing.p50 / 1e9,
        machine=torch.cuda.get_device_name(),
        **more,
    )


def bench_moments(n: int, dim: int, dtype: torch.dtype) -> list[Row]:
    """Against the read bandwidth, and what a user would write."""
    size = (n, dim, dtype)
    rows = some_rows(*size)
    flat = rows[0]
    calls: dict[str, Callable[[], object]] = {
        OURS: lambda: kernels.moments(rows, None, 0),
        "normalize_float_sum": lambda: F.normalize(flat.float()).sum(0),
        "read: triton": lambda: read_all(rows),
        "read: sum of int64": lambda: flat.view(-1).view(torch.int64).sum(),
    }
    timings = timed(calls)
    limit = min(t.p50 for name, t in timings.items() if name.startswith("read"))
    want = mean_cosine(exact(flat, unit=True, product=False), n, n)
    _, totals, sums = kernels.moments(rows, None, 0)
    got = {
        OURS: mean_cosine(sums[2], totals[4], n),
        "normalize_float_sum": mean_cosine(F.normalize(flat.float()).sum(0), n, n),
    }
    return [
        row(
            "moments" if name in got else "read",
            name,
            size,
            timing,
            share_of_limit=limit / timing.p50,
            ratio_to_ours=timing.p50 / timings[OURS].p50,
            peak_mib=peak_mib(calls[name]) if name in got else None,
            error=abs(got[name] / want - 1) if name in got else None,
        )
        for name, timing in timings.items()
    ]


def bench_gram(n: int, dim: int, dtype: torch.dtype) -> list[Row]:
    """Against cuBLAS in bfloat16, counted on the triangle: half of its time for the square is the limit.

    ``fastaniso`` is the scatter of x, one product; that of u takes two, so half of the limit is the most it can reach.
    """
    size = (n, dim, dtype)
    rows = some_rows(*size)
    half = rows[0].bfloat16()
    variants = {OURS: (True, False), f"{OURS}, unit": (False, True), f"{OURS}, both": (True, True)}
    calls: dict[str, Callable[[], object]] = {
        name: (lambda raw=raw, unit=unit: kernels.gram(rows, None, raw, unit, 0))
        for name, (raw, unit) in variants.items()
    }
    calls["mm in bfloat16"] = lambda: half.T @ half
    timings = timed(calls)
    limit = timings["mm in bfloat16"].p50 / 2
    out = []
    for name, timing in timings.items():
        error = None
        if name in variants and variants[name] != (True, True):
            raw, unit = variants[name]
            got = kernels.gram(rows, None, raw, unit, 0)[3 + unit]
            want = exact(rows[0], unit=unit, product=True)
            error = float((got - want).norm() / want.norm())
        operations = n * dim * (dim + 1) * (1 if name in variants else 2)
        out.append(
            row(
                "gram",
                name,
                size,
                timing,
                tflop_per_s=operations / timing.p50 / 1e12,
                share_of_limit=limit / timing.p50 if name in variants else None,
                ratio_to_ours=timing.p50 / timings[OURS].p50,
                peak_mib=peak_mib(calls[name]),
                error=error,
            )
        )
    return out


def show(rows: list[Row]) -> None:
    for r in rows:
        figures = {
            "GB/s": r.gb_per_s,
            "TFLOP/s": r.tflop_per_s,
            "of limit": r.share_of_limit,
            "× ours": r.ratio_to_ours,
            "MiB": r.peak_mib,
            "error": r.error,
        }
        text = "  ".join(f"{name} {value:.3g}" for name, value in figures.items() if value is not None)
        times = f"{r.p20_ms:.3f} / {r.p50_ms:.3f} / {r.p80_ms:.3f} ms"
        print(f"  {r.op:8} {r.contender:22} {r.n:>9,} × {r.d:<5} {r.dtype:9} {times}  {text}", flush=True)


def registers() -> None:
    """Registers and spills of what has run, to hold against the figures of the compile tests."""
    for module in ("moments", "gram", "norms", "columns"):
        for name, kernel in vars(sys.modules[f"fastaniso.ops.triton.{module}"]).items():
            if not name.endswith(f"{module}_kernel"):
                continue
            for compiled in kernel.device_caches[torch.cuda.current_device()][0].values():
                used, spilled = getattr(compiled, "n_regs", None), getattr(compiled, "n_spills", None)
                print(f"  {name}: {used} registers, {spilled} spills, {compiled.metadata.shared} B shared")


def main() -> int:
    started = time.perf_counter()
    print(f"python {platform.python_version()}, torch {torch.__version__}, triton {triton.__version__}")
    if not torch.cuda.is_available():
        print("no CUDA or ROCm device on this machine; the kernels are tested without one by tests/triton")
        return 1
    print(f"{torch.cuda.get_device_name()}, capability {torch.cuda.get_device_capability()}", flush=True)
    failures = check()
    print(f"correctness: {failures} failures after {time.perf_counter() - started:.0f} s", flush=True)
    rows: list[Row] = []
    for bench, sizes in ((bench_moments, MOMENTS_SIZES), (bench_gram, GRAM_SIZES)):
        for size in sizes:
            rows += (made := bench(*size))
            show(made)
    registers()
    for path in append(rows, Path(os.environ.get("OUT") or ROOT / "bench" / "results")):
        print(f"rows in {path}")
    print(f"{time.perf_counter() - started:.0f} s in all")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
