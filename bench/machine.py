"""What a benchmark row says of the machine it ran on, and how many threads run."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch


@functools.cache
def cpu_name() -> str:
    """The CPU's model and its cores, such as "AMD EPYC 9654, 2 cores"."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        model = found[1].strip() if found else model
    return f"{model}, {os.cpu_count()} cores"


def file_name(machine: str) -> str:
    """The name of a machine's file of results: words and digits with hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-") + ".csv"


@functools.cache
def versions() -> str:
    """Python and the packages whose code is timed, as "python 3.11.2, torch 2.13.0, …"."""
    found = [f"python {platform.python_version()}"]
    for package in (
        *("torch", "fastaniso", "numpy", "scipy", "scikit-learn", "torchmetrics", "triton", "transformers"),
        *("faiss-cpu", "scikit-dimension", "simsimd", "pykeops"),
    ):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if package != "fastaniso":
                continue
            from fastaniso import __version__ as version  # run from the source tree
        found.append(f"{package} {version}")
    return ", ".join(found)


@functools.cache
def commit() -> str:
    """The commit that is checked out, with "-dirty" if tracked files differ from it."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


@functools.cache
def _blas(with_faiss: bool) -> Any:
    """The BLAS libraries that NumPy, SciPy and faiss brought, whose threads torch does not set.

    Searched for anew once faiss is loaded; None without threadpoolctl.
    """
    with contextlib.suppress(ImportError):
        import scipy.linalg.blas  # noqa: F401 (SciPy's own copy is found only once it is loaded)
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


def use_threads(threads: int) -> None:
    """Let torch, fastaniso and every BLAS run on so many threads."""
    torch.set_num_threads(threads)
    faiss = sys.modules.get("faiss")
    if (blas := _blas(faiss is not None)) is not None:
        for library in blas.lib_controllers:
            library.set_num_threads(threads)
    if faiss is not None:
        faiss.omp_set_num_threads(threads)
    torch.ones(1 << 16).sum()  # starts the threads, so that no timed call does


def environment_for(isa: str) -> dict[str, str]:
    """The environment of a process in which fastaniso *and* the libraries it is compared to use ``isa``."""
    others = {
        "avx2": {
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2",
            "OPENBLAS_CORETYPE": "Haswell",
        }
    }
    return {**os.environ, "FASTANISO_ISA": isa, **others.get(isa, {})}
