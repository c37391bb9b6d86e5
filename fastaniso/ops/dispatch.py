"""Rows in, state out: choose the backend, call the op, name what it returned."""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

from fastaniso.heads import Heads, key_span
from fastaniso.ops import library  # noqa: F401 (registers torch.ops.fastaniso)
from fastaniso.rows import DTYPES, Rows
from fastaniso.state import Attention, Coverage, Gram, GroupMoments, Moments, Neighbors, PairCoverage, Pairs

BACKENDS = ("auto", "triton", "cpu", "reference")
PRECISIONS = ("exact", "fast")
MAX_BINS = 8192
_FAST = frozenset({"float32 rows, triton kernel, fast"})
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


def pairs(
    rows: Rows,
    other: Rows | None = None,
    *,
    bins: int = 0,
    moments: bool = True,
    extrema: bool = True,
    uniformity_t: tuple[float, ...] = (),
    thresholds: tuple[float, ...] = (),
    precision: str = "exact",
    backend: str = "auto",
    start: int = 0,
    other_start: int = 0,
    source: str | None = None,
    other_source: str | None = None,
) -> Pairs:
    """Sums over the cosines of all pairs i < j of the rows, or of all pairs of a row and one of ``other``."""
    name = resolve(backend, rows.values.device)
    theirs, their_mask = (None, None) if other is None else (other.values, other.mask)
    counts, histogram, powers, exponentials, above, values, places = torch.ops.fastaniso.pairs(
        *(rows.values, rows.mask, theirs, their_mask, bins, moments, extrema),
        *(list(uniformity_t), list(thresholds), start, other_start, checked_precision(precision), name),
    )
    return Pairs(
        dim=rows.dim,
        coverage=_pair_coverage(rows, other, source, other_source, start, other_start),
        provenance=_pair_provenance(rows, precision, name),
        uniformity_t=uniformity_t,
        thresholds=thresholds,
        counts=counts,
        histogram=histogram if bins else None,
        moments=powers if moments else None,
        exponentials=exponentials,
        above=above,
        extrema=values if extrema else None,
        extrema_at=places if extrema else None,
    )


def neighbors(
    rows: Rows,
    other: Rows | None = None,
    *,
    k: int,
    least: Tensor | None = None,
    precision: str = "exact",
    backend: str = "auto",
    start: int = 0,
    other_start: int = 0,
    source: str | None = None,
    other_source: str | None = None,
) -> Neighbors:
    """The k largest cosines of each row with the other rows, itself excluded, or with the rows of ``other``.

    Where a row has k neighbours already, those with a cosine below ``least`` (n,), the k-th of them, may be left out,
    and are: few candidates are then worth a closer look.
    """
    found, _ = _neighbors(
        rows, other, k, False, least, None, precision, backend, start, other_start, source, other_source
    )
    return found


def mutual_neighbors(
    rows: Rows,
    other: Rows,
    *,
    k: int,
    least: Tensor | None = None,
    other_least: Tensor | None = None,
    precision: str = "exact",
    backend: str = "auto",
    start: int = 0,
    other_start: int = 0,
    source: str | None = None,
    other_source: str | None = None,
) -> tuple[Neighbors, Neighbors]:
    """``neighbors`` of the rows among ``other`` and of ``other`` among the rows, from one visit of each pair."""
    return _neighbors(
        rows, other, k, True, least, other_least, precision, backend, start, other_start, source, other_source
    )


def _neighbors(
    rows: Rows,
    other: Rows | None,
    k: int,
    both: bool,
    least: Tensor | None,
    other_least: Tensor | None,
    precision: str,
    backend: str,
    start: int,
    other_start: int,
    source: str | None,
    other_source: str | None,
) -> tuple[Neighbors, Neighbors]:
    name = resolve(backend, rows.values.device)
    theirs, their_mask = (None, None) if other is None else (other.values, other.mask)
    _check_least("least", least, rows)
    if other is not None:
        _check_least("other_least", other_least, other)
    counts, cosines, indices, other_cosines, other_indices = torch.ops.fastaniso.neighbors(
        *(rows.values, rows.mask, theirs, their_mask, least, other_least, k, both, start, other_start),
        *(checked_precision(precision), name),
    )
    provenance = _pair_provenance(rows, precision, name)
    there = _pair_coverage(rows, other, source, other_source, start, other_start)
    back = PairCoverage() if other is None else _pair_coverage(other, rows, other_source, source, other_start, start)
    # Slices: a list of indices would be copied to the device, which waits.
    swapped = torch.cat((counts[:3], counts[4:], counts[3:4]))
    return (
        Neighbors(rows.dim, there, provenance, start, counts, cosines, indices),
        Neighbors(rows.dim, back, provenance, other_start, swapped, other_cosines, other_indices),
    )


def _check_least(name: str, least: Tensor | None, rows: Rows) -> None:
    """Kernels read it as it is."""
    if least is None:
        return
    dtype = torch.float64 if rows.values.dtype == torch.float64 else torch.float32
    wanted = ((rows.count,), dtype, rows.values.device, True)
    if (tuple(least.shape), least.dtype, least.device, least.is_contiguous()) != wanted:
        raise ValueError(
            f"{name}: expected contiguous {dtype} ({rows.count},) on {rows.values.device}, got {least.dtype} "
            f"{tuple(least.shape)} on {least.device}, strides {least.stride()}"
        )


def attention(
    heads: Heads,
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    bins: int = 512,
    score_range: tuple[float, float] = (-32.0, 32.0),
    positions: int = 64,
    backend: str = "auto",
    start: int = 0,
    source: str | None = None,
) -> Attention:
    """What is taken from the scores and the softmax of each query, summed by head; ``scale`` is 1/√d by default."""
    queries, keys = heads.queries, heads.keys
    name = resolve(backend, queries.device)
    key_span(queries.shape[2], keys.shape[2], causal, window)  # refuses what has no meaning
    check_attention_options(bins, score_range, positions)
    scale = heads.dim**-0.5 if scale is None else float(scale)
    low, high = map(float, score_range)
    counts, histogram, scores, rows, received, visible = torch.ops.fastaniso.attention(
        *(queries, keys, heads.query_mask, heads.key_mask, scale, causal, window, bins, low, high, positions, name)
    )
    return Attention(
        dim=heads.dim,
        coverage=Coverage() if source is None else Coverage.of(source, start, start + heads.rows),
        provenance=_PROVENANCE[queries.dtype, name],
        scale=scale,
        causal=causal,
        window=window,
        score_range=(low, high),
        counts=counts,
        histogram=histogram,
        scores=scores,
        rows=rows,
        received=received,
        visible=visible,
    )


def check_attention_options(bins: int, score_range: tuple[float, float], positions: int) -> None:
    """Refuse a histogram that there cannot be, and a number of first keys that is none."""
    if isinstance(bins, bool) or not isinstance(bins, int) or not 0 <= bins <= MAX_BINS:
        raise ValueError(f"bins: expected a number from 0 to {MAX_BINS}, got {bins!r}")
    low, high = score_range
    if not -1e30 < low < high < 1e30:
        raise ValueError(f"score_range: expected a lower and a higher score, got {score_range!r}")
    if isinstance(positions, bool) or not isinstance(positions, int) or positions < 0:
        raise ValueError(f"positions: expected a number of first keys, 0 or more, got {positions!r}")


def checked_precision(precision: str) -> str:
    """``precision`` itself: "exact", or "fast", which lets a kernel round float32 rows before it multiplies them."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected 'exact' or 'fast', got {precision!r}")
    return precision


def _pair_provenance(rows: Rows, precision: str, backend: str) -> frozenset[str]:
    if precision == "fast" and backend == "triton" and rows.values.dtype == torch.float32:
        return _FAST
    return _PROVENANCE[rows.values.dtype, backend]


def _coverage(rows: Rows, source: str | None, start: int) -> Coverage:
    return Coverage() if source is None else Coverage.of(source, start, start + rows.count)


def _pair_coverage(
    rows: Rows, other: Rows | None, source: str | None, other_source: str | None, start: int, other_start: int
) -> PairCoverage:
    """Rows without a name have no coverage. Within one source the pair (i, j) of ``pairs`` needs i < j."""
    ours = (start, start + rows.count)
    if source is None:
        return PairCoverage()
    if other is None:
        return PairCoverage.of(source, ours, source, ours)
    if other_source is None:
        return PairCoverage()
    return PairCoverage.of(source, ours, other_source, (other_start, other_start + other.count))
