"""What the benchmarks on a GPU share: rows, timing by events, memory, and rows of results."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.harness import OURS, Row, Timing

Size = tuple[int, int, torch.dtype]
ROUNDS = 15


def timed(calls: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, Timing]:
    """Calls in turns, each between two events; compiled and allocated before."""
    for call in calls.values():
        for _ in range(2):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
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


def row(op: str, contender: str, size: Size, timing: Timing, **more: float | None) -> Row:
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
        print(f"  {r.op:9} {r.contender:32} {r.n:>9,} × {r.d:<5} {r.dtype:9} {times}  {text}", flush=True)
