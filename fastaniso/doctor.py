"""What this machine can use, and a proof: each backend on a small case against the float64 reference."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fastaniso._version import __version__
from fastaniso.ops import dispatch as ops
from fastaniso.ops import reference
from fastaniso.rows import DTYPES, Rows, as_rows

ROWS = 500


def tolerance(dtype: torch.dtype) -> float:
    """What rounding can do to a sum of ``ROWS`` products if all of it goes one way: half an ε each.

    Products of 16-bit and float32 rows are summed in float32 over a few hundred rows, those of float64 in float64.
    """
    return ROWS * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps / 2


_PACKAGES = ("torch", "triton", "transformers", "safetensors", "numpy", "matplotlib")


@dataclass(frozen=True)
class Check:
    """One backend on one device: ok, failed or unavailable; ``error`` is the largest, relative to the largest sum."""

    backend: str
    device: str
    status: str
    error: float | None
    detail: str


@dataclass(frozen=True)
class Diagnosis:
    """The machine and what was proven on it."""

    machine: dict[str, Any]
    checks: tuple[Check, ...]

    @property
    def failed(self) -> bool:
        """Whether a backend that should work gives wrong sums or an error."""
        return any(check.status == "failed" for check in self.checks)

    @property
    def usable(self) -> bool:
        """Whether there is a kernel besides the slow reference."""
        return any(check.status == "ok" and check.backend != "reference" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict."""
        return {"kind": "doctor", "machine": self.machine, "checks": [asdict(check) for check in self.checks]}

    def to_json(self, *, indent: int | None = None) -> str:
        """JSON of ``to_dict``."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        facts = [(name, _words(value)) for name, value in self.machine.items()]
        width = max(len(name) for name, _ in facts)
        lines = [f"{name:<{width}}  {value}" for name, value in facts]
        lines.append("")
        for check in self.checks:
            error = "" if check.error is None else f"largest error {check.error:.1e}; "
            lines.append(f"{check.backend:<9}  {check.device:<6}  {check.status:<11}  {error}{check.detail}")
        return "\n".join(lines)


def diagnose() -> Diagnosis:
    """Look at the machine and prove every backend that can run on it."""
    return Diagnosis(_machine(), (*_prove_cpu(), *_prove_triton(), _prove_reference()))


def _machine() -> dict[str, Any]:
    available, total = _memory()
    facts: dict[str, Any] = {
        "fastaniso": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{name: importlib.metadata.version(name) if _installed(name) else "not installed" for name in _PACKAGES},
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": f"{available:.1f} of {total:.1f} GB free" if available else f"{total:.1f} GB",
    }
    try:
        from fastaniso.ops import cpu
    except ImportError as error:
        facts["instruction set"] = f"none: the compiled kernels cannot be imported ({error})"
    else:
        facts["instruction set"] = f"{cpu.isa()} (can run {', '.join(cpu.available_isas())})"
    facts["GPU"] = [_gpu(index) for index in range(torch.cuda.device_count())] or "none"
    return facts


def _prove_cpu() -> Iterable[Check]:
    try:
        from fastaniso.ops import cpu
    except ImportError as error:
        return [Check("cpu", "cpu", "unavailable", None, f"the compiled kernels cannot be imported: {error}")]
    checks = []
    for isa in cpu.available_isas():
        with cpu.using_isa(isa):
            checks.append(_prove("cpu", torch.device("cpu"), f"{isa} kernels"))
    return checks


def _prove_triton() -> Iterable[Check]:
    if not torch.cuda.is_available():
        return [Check("triton", "cuda", "unavailable", None, "torch finds no GPU")]
    if not _installed("triton"):
        return [Check("triton", "cuda", "unavailable", None, "the package triton is not installed")]
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [_prove("triton", device, torch.cuda.get_device_name(device)) for device in devices]


def _prove_reference() -> Check:
    """The reference itself against the full matrix of cosines."""
    rows, mask, _ = _case(torch.float64)
    units = torch.nn.functional.normalize(rows[mask], dim=1)
    cosines = units @ units.T
    n = len(units)
    expected = (cosines.sum() - cosines.trace()) / (n * (n - 1))
    counts, _, sums = reference.moments(rows[None], mask[None], 0)
    found = (sums[2].square().sum() - sums[3].sum()) / (counts[0] * (counts[0] - 1))
    error = float((found - expected).abs())
    status = "ok" if error < 1e-12 else "failed"
    return Check("reference", "cpu", status, error, "mean cosine against the full matrix, float64")


def _prove(backend: str, device: torch.device, detail: str) -> Check:
    worst, right = 0.0, True
    try:
        for dtype in DTYPES:
            hidden, mask, groups = (tensor.to(device) for tensor in _case(dtype))
            rows = as_rows(hidden, mask)
            ids = groups.view(rows.values.shape[:2])
            for state, expected in zip(_states(rows, ids, backend), _states(rows, ids, "reference"), strict=True):
                error = _distance(state, expected)
                worst, right = max(worst, error), right and error <= tolerance(dtype)
    except Exception as error:
        return Check(backend, str(device), "failed", None, f"{detail}: {type(error).__name__}: {error}")
    dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
    return Check(backend, str(device), "ok" if right else "failed", worst, f"{detail}; every op in {dtypes}")


def _states(rows: Rows, groups: Tensor, backend: str) -> list[dict[str, Any]]:
    return [
        ops.moments(rows, backend=backend).to_dict(),
        ops.group_moments(rows, groups, 4, backend=backend).to_dict(),
        ops.gram(rows, backend=backend).to_dict(),
    ]


def _case(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """500 rows of 67 numbers with a drift, every seventh masked, in 4 groups: odd sizes, where kernels go wrong."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(ROWS, 67, generator=generator) + 0.5
    index = torch.arange(ROWS)
    return rows.to(dtype), index % 7 != 3, index % 4


def _distance(state: dict[str, Any], expected: dict[str, Any]) -> float:
    worst = 0.0
    for name, truth in expected.items():
        if isinstance(truth, Tensor):
            a, b = state[name].double().cpu(), truth.double().cpu()
            worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp(min=1)))
    return worst


def _gpu(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    return (
        f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, "
        f"compute capability {properties.major}.{properties.minor}"
    )


def _memory() -> tuple[float, float]:
    """Free and total main memory in GB; free is 0 where the system does not say."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else 0.0
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            kilobytes = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 0.0, total
    return kilobytes * 1024 / 1e9, total


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _words(value: Any) -> str:
    return "; ".join(value) if isinstance(value, list) else str(value)
