"""What there is on this machine: versions, processor, memory, GPUs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import torch

from fastaniso._version import __version__

_PACKAGES = ("torch", "triton", "transformers", "safetensors", "numpy", "matplotlib", "pyarrow", "datasets")


def describe_machine() -> dict[str, Any]:
    """Facts by name."""
    available, total = _memory()
    facts: dict[str, Any] = {
        "fastaniso": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{name: importlib.metadata.version(name) if is_installed(name) else "not installed" for name in _PACKAGES},
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


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
