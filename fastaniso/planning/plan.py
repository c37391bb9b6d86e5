"""What a call will take, before it runs: bytes of state, working memory, operations, bytes read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import torch

from fastaniso.ops.dispatch import resolve
from fastaniso.planning.calibration import Calibration
from fastaniso.planning.pairs import PairWork, neighbor_work, pair_work

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


_GRAM_ROWS = 1024
"""Rows that the CPU's Gram packs at a time, as in csrc/gram.h."""


@dataclass(frozen=True)
class Plan:
    """Bytes and operations of one call; ``peak_bytes`` is what it takes beside the input.

    ``exact`` is False where a sample is taken, and None where its pilot decides: then operations are at most these.
    ``remedy`` is what takes less.
    """

    backend: str
    state_bytes: int
    working_bytes: int
    operations: int
    bytes_read: int
    exact: bool | None = True
    remedy: str = "pass fewer rows"
    _calibration: Calibration | None = field(default=None, repr=False)

    @property
    def peak_bytes(self) -> int:
        """State and working memory together."""
        return self.state_bytes + self.working_bytes

    def seconds(self) -> float:
        """Expected time of a call on all pairs or neighbours, from the op timed on a few thousand rows.

        Measured when asked for, with torch's present number of threads, on the device planned for.
        """
        if self._calibration is None:
            raise ValueError("seconds: only calls with pairs=True or neighbors=k are timed")
        return self._calibration.seconds()

    def check(self, memory_limit: int | str | None) -> None:
        """Raise ``MemoryError`` if the call needs more than ``memory_limit`` (bytes, or a string such as "2 GB")."""
        if memory_limit is None:
            return
        limit = parse_bytes(memory_limit)
        if self.peak_bytes > limit:
            raise MemoryError(
                f"memory_limit: {_readable(limit)} given, and the {self.backend} kernel needs "
                f"{_readable(self.peak_bytes)} beside the input ({_readable(self.state_bytes)} of state, "
                f"{_readable(self.working_bytes)} of working memory); raise the limit, or {self.remedy}"
            )


def plan(
    n: int,
    dim: int,
    *,
    gram: bool | str = False,
    groups: int | None = None,
    pairs: bool = False,
    neighbors: int | None = None,
    other: int | None = None,
    bins: int = 2048,
    sample: float | None = None,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    accumulate: bool = False,
) -> Plan:
    """Bytes and operations for n rows of ``dim`` numbers, known before anything runs; an upper bound on the bytes.

    ``gram`` as for ``Accumulator``: False, True (both scatters), "raw" or "unit"; ``groups`` the number of groups.
    ``accumulate=True`` counts what merging into an earlier state takes. ``pairs=True`` plans ``fastaniso.pairs`` with
    its ``bins`` and ``sample``, ``neighbors=k`` plans ``nearest_neighbors``; ``other`` is the number of rows of a
    second set. Operations are multiplications and additions.
    """
    device = torch.device(device)
    name = resolve(backend, device)
    if pairs or neighbors is not None:
        if gram or groups is not None or (pairs and neighbors is not None):
            raise ValueError("plan: one call at a time: pairs=True, or neighbors=k, or gram= and groups=")
        linear_pass = _kernel_bytes(name, max(n, other or 0), dim, 0, dtype, None)
        work = (
            pair_work(n, other, dim, bins=bins, sample=sample, dtype=dtype, backend=name, kernel_bytes=linear_pass)
            if neighbors is None
            else neighbor_work(n, other, dim, neighbors, dtype=dtype, backend=name, kernel_bytes=linear_pass)
        )
        op = "pairs" if neighbors is None else "neighbors"
        return _plan_of(work, Calibration(op, work.products, dim, dtype, name, device), n + (other or 0))
    asked = scatters_of(gram)
    scatters = len(asked)
    linear = 8 * (11 + 4 * dim)
    square = 8 * dim * dim
    by_group = 8 * (5 + groups * (dim + 2)) if groups is not None else 0
    state = linear + scatters * square + by_group
    # Eigenvalues: the uncentred scatter and two of its size for the solver.
    statistics = 3 * square if "raw" in asked else 0
    kernel = _kernel_bytes(name, n, dim, scatters, dtype, groups)
    # A batch's own state, and while merging it two more of one scatter and one of each finished before.
    merging = state + by_group + 2 * linear + (scatters + 1) * square * bool(scatters)
    working = max(state + kernel, merging, statistics) if accumulate else max(kernel, statistics)
    reads = 1 + (groups is not None)
    return Plan(
        backend=name,
        state_bytes=state,
        working_bytes=working,
        operations=n * dim * (8 + scatters * (dim + 1) + (6 if groups is not None else 0)),
        bytes_read=n * dim * dtype.itemsize * reads,
        remedy="ask for less: gram=False takes O(d) instead of O(d²), fewer groups a shorter state",
    )


def _plan_of(work: PairWork, calibration: Calibration, rows: int) -> Plan:
    return Plan(
        backend=calibration.backend,
        state_bytes=work.state_bytes,
        working_bytes=work.working_bytes,
        operations=2 * work.products,
        bytes_read=rows * calibration.dim * calibration.dtype.itemsize,
        exact=work.exact,
        remedy="ask for less: fewer bins or neighbours, fewer threads",
        _calibration=calibration,
    )


def scatters_of(gram: bool | str) -> tuple[str, ...]:
    """The scatters that ``gram=`` asks for: none, "raw" (of x), "unit" (of u), or both."""
    if gram in (True, False):
        return ("raw", "unit") if gram else ()
    if gram in ("raw", "unit"):
        return (str(gram),)
    raise ValueError(f"gram: expected False, True, 'raw' or 'unit', got {gram!r}")


def parse_bytes(memory_limit: int | str) -> int:
    """Bytes as an int, or as a string with a unit: "500 MB" is 5·10⁸, "2 GiB" 2³¹."""
    if isinstance(memory_limit, int) and not isinstance(memory_limit, bool) and memory_limit >= 0:
        return memory_limit
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmgt]?i?)b?\s*", str(memory_limit).lower())
    if not isinstance(memory_limit, str) or match is None or match[2] not in _UNITS:
        raise ValueError(f"memory_limit: expected bytes or a string such as '2 GB' or '512 MiB', got {memory_limit!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def _kernel_bytes(backend: str, n: int, dim: int, scatters: int, dtype: torch.dtype, groups: int | None) -> int:
    if backend == "reference":
        # Rows, kept rows, units, their squares and the centred rows, all float64, and one-hot groups.
        return 8 * n * (5 * dim + 4 + 2 * (groups or 0)) + 8 * dim * dim * scatters
    if backend == "triton":
        # Bounds of ops/triton/shapes.py: float32 partials of at most 64 MiB a launch (or d² bytes), their second pass
        # in float64, and norms, scales and weights of the rows of a launch.
        linear = min(2**26, 16 * dim * max(n // 16, 1)) + 2**24 + 24 * min(n, 2**22)
        return linear + scatters * max(2**26, dim * dim) + (24 * n + 2**26 if groups is not None else 0)
    # Partial sums of each thread; for a Gram one block of packed rows, which raw and unit rows use in turn.
    sums = 2**18 + 4 * torch.get_num_threads() * 32 * dim
    packed = min(n, _GRAM_ROWS) * (dim + 64) * (8 if dtype == torch.float64 else 4) + 2 * 2**20
    return sums + (packed if scatters else 0) + (n if groups is not None else 0)


def _readable(count: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.4g} {unit}"
        count = count / 1000  # type: ignore[assignment]
    raise AssertionError
