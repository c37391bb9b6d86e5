"""Rows in, state out: choose the backend, call the op, name what it returned."""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

from fastaniso.ops import library  # noqa: F401 (registers torch.ops.fastaniso)
from fastaniso.rows import DTYPES, Rows
from fastaniso.state import Coverage, Gram, GroupMoments, Moments

BACKENDS = ("auto", "triton", "cpu", "reference")
_PROVENANCE = {
    (dtype, backend): frozenset({f"{str(dtype).removeprefix('torch.')} rows, {backend} kernel"})
    for dtype in DTYPES
    for backend in BACKENDS
}


def resolve(backend: str, device: torch.device) -> str:
    """The backend that will run for rows on ``device``; an error if the one asked for cannot."""
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "reference":
        return backend
    if device.type == "cpu":
        if backend == "triton" and os.environ.get("TRITON_INTERPRET") != "1":
            raise ValueError("backend: 'triton' needs rows on a GPU, got rows on cpu; use backend='cpu' or move them")
        return "cpu" if backend == "auto" else backend
    if backend == "cpu":
        raise ValueError(f"backend: 'cpu' needs rows on cpu, got rows on {device}; use backend='auto' or hidden.cpu()")
    if device.type != "cuda":
        raise ValueError(f"backend: no kernel for {device.type} tensors; use hidden.cpu() or backend='reference'")
    if not _has_triton():
        raise ModuleNotFoundError(
            "backend: 'triton' is what runs on a GPU, and the package triton is not installed; "
            "install triton, or use backend='reference' (slow, float64)"
        )
    return "triton"


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def moments(rows: Rows, *, backend: str = "auto", start: int = 0, source: str | None = None) -> Moments:
    """First and second moments of the rows and of the unit rows."""
    name = resolve(backend, rows.values.device)
    counts, totals, sums = torch.ops.fastaniso.moments(rows.values, rows.mask, start, name)
    coverage = _coverage(rows, source, start)
    return Moments(rows.dim, coverage, _PROVENANCE[rows.values.dtype, name], counts, totals, sums)


def group_moments(
    rows: Rows, groups: Tensor, num_groups: int, *, backend: str = "auto", start: int = 0, source: str | None = None
) -> GroupMoments:
    """Sums of unit rows by group; ``groups`` (outer, inner) holds 0..num_groups−1."""
    name = resolve(backend, rows.values.device)
    counts, unit_sum, unit_squared, dropped = torch.ops.fastaniso.group_moments(
        rows.values, rows.mask, groups, num_groups, start, name
    )
    coverage = _coverage(rows, source, start)
    return GroupMoments(
        rows.dim, coverage, _PROVENANCE[rows.values.dtype, name], counts, unit_sum, unit_squared, dropped
    )


def gram(
    rows: Rows,
    *,
    raw: bool = True,
    unit: bool = True,
    backend: str = "auto",
    start: int = 0,
    source: str | None = None,
) -> Gram:
    """Moments and the central scatter of the rows (``raw``) and of the unit rows (``unit``)."""
    name = resolve(backend, rows.values.device)
    counts, totals, sums, scatter, unit_scatter = torch.ops.fastaniso.gram(
        rows.values, rows.mask, raw, unit, start, name
    )
    linear = Moments(
        rows.dim, _coverage(rows, source, start), _PROVENANCE[rows.values.dtype, name], counts, totals, sums
    )
    return Gram.of(linear, scatter if raw else None, unit_scatter if unit else None)


def _coverage(rows: Rows, source: str | None, start: int) -> Coverage:
    return Coverage() if source is None else Coverage.of(source, start, start + rows.count)
