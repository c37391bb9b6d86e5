"""Run the launchers without a GPU: every launch is compiled for a target with its true arguments, and recorded.

Tensors are on the ``meta`` device, so an input of any size costs nothing.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TENSOR_CORES = {"sm_80": r"\bHMMA\b", "sm_90": r"\bHGMMA\b", "sm_100": r"\bUTCHMMA\b", "gfx942": r"\bv_mfma"}
SHARED_BYTES = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 64 * 1024}
"""The most shared memory that one program may have."""


@dataclass(frozen=True)
class Launch:
    """One recorded launch."""

    name: str
    target: str
    grid: tuple[int, ...]
    compiled: Any
    constants: dict[str, Any]
    arguments: dict[str, Any]

    @property
    def shared(self) -> int:
        return int(self.compiled.metadata.shared)

    @cached_property
    def assembly(self) -> str:
        if self.target == "gfx942":
            return str(self.compiled.asm["amdgcn"])
        return self._tool("nvdisasm", "-c")

    @cached_property
    def registers(self) -> int:
        pattern, text = r"\.vgpr_count:\s+(\d+)", self.assembly
        if self.target != "gfx942":
            pattern, text = r"REG:(\d+)", self._tool("cuobjdump", "-res-usage")
        return int(re.findall(pattern, text)[-1])

    @property
    def spills(self) -> int:
        """Registers that went to memory (scalar ones of gfx942 go to vector registers)."""
        if self.target == "gfx942":
            return int(re.findall(r"\.vgpr_spill_count:\s+(\d+)", self.assembly)[-1])
        return len(re.findall(r"\b(?:STL|LDL)\b", self.assembly))

    @property
    def instructions(self) -> int:
        return len(self._body())

    @property
    def uses_tensor_cores(self) -> bool:
        return re.search(TENSOR_CORES[self.target], self.assembly) is not None

    @property
    def main_loop(self) -> int:
        """Instructions of the longest loop (CUDA targets)."""
        return max((last - first for first, last in self._loops()), default=0)

    @property
    def inner_loop(self) -> int:
        """Instructions of the first loop within the longest (CUDA targets)."""
        loops = self._loops()
        start, stop = max(loops, key=lambda loop: loop[1] - loop[0])
        return next((last - first for first, last in sorted(loops) if start < first and last < stop), 0)

    @property
    def product_loop(self) -> int:
        """Instructions of the shortest loop that multiplies on tensor cores (CUDA targets)."""
        multiplies = [
            number for number, line in enumerate(self._numbered()) if re.search(TENSOR_CORES[self.target], line)
        ]
        around = [last - first for first, last in self._loops() if any(first <= at < last for at in multiplies)]
        return min(around, default=0)

    @property
    def static_shared(self) -> int:
        """Bytes of shared memory that Triton does not know of, and what the system takes (CUDA targets)."""
        return int(re.findall(r"SHARED:(\d+)", self._tool("cuobjdump", "-res-usage"))[-1])

    def _numbered(self) -> list[str]:
        return [line for line in self.assembly.splitlines() if re.search(r"/\*[0-9a-f]{4,}\*/", line)]

    def _loops(self) -> list[tuple[int, int]]:
        """Numbers of the first instruction of each loop and of that behind it."""
        labels: dict[str, int] = {}
        loops, count = [], 0
        for line in self.assembly.splitlines():
            if label := re.match(r"\s*(\.L_x_\d+):", line):
                labels[label[1]] = count
            elif re.search(r"/\*[0-9a-f]{4,}\*/", line):
                count += 1
                back = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", line)
                if back and back[1] in labels:
                    loops.append((labels[back[1]], count))
        return loops

    def _body(self) -> list[str]:
        pattern = r"^\s+[sv]_|^\s+(?:global|buffer|ds|flat)_" if self.target == "gfx942" else r"/\*[0-9a-f]{4,}\*/"
        return [line for line in self.assembly.splitlines() if re.search(pattern, line) and "NOP" not in line]

    def _tool(self, name: str, option: str) -> str:
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(self.compiled.asm["cubin"])
            file.flush()
            return subprocess.run([tool, option, file.name], check=True, capture_output=True, text=True).stdout


class _Driver:
    """As much of a driver as a launch asks for before it reaches the device."""

    def __init__(self, target: str) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return TARGETS[self._target]

    def get_current_device(self) -> int:
        # Compiled kernels are kept by device number: one number a target, and none that a real device has.
        return 1000 + list(TARGETS).index(self._target)

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def recorded(target: str, only: str | None = None) -> Iterator[list[Launch]]:
    """Within the block, launches (of the kernel ``only``) are compiled for ``target`` and listed instead of run."""
    launches: list[Launch] = []
    run = JITFunction.run

    def record(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        if only not in (None, self.fn.__name__):
            return
        compiled = run(self, *args, grid=grid, warmup=True, **kwargs)
        constants = {k: v for k, v in kwargs.items() if k.isupper() or k[:1].isupper()}
        arguments = {**dict(zip(self.arg_names, args, strict=False)), **kwargs}
        launches.append(Launch(self.fn.__name__, target, tuple(grid), compiled, constants, arguments))

    before = driver._active
    driver.set_active(_Driver(target))
    JITFunction.run = record
    try:
        yield launches
    finally:
        JITFunction.run = run
        driver._active = before


def rows(n: int, dim: int, dtype: torch.dtype) -> torch.Tensor:
    """(1, n, dim) rows that take no memory."""
    return torch.empty(1, n, dim, dtype=dtype, device="meta")
