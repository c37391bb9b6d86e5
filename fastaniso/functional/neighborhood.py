"""The nearest rows of each row, and what they tell about the cloud: intrinsic dimension and hubness."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastaniso._version import __version__
from fastaniso.pairing.sets import Sets, as_sets, run
from fastaniso.pairing.tiles import blocks_of, gather, kept_rows, rows_in_block, visit_neighbors
from fastaniso.planning.pairs import neighbor_tile_bytes
from fastaniso.planning.plan import plan
from fastaniso.progress import Report
from fastaniso.result import Hubness, LevinaBickel, NearestNeighbors, TwoNN
from fastaniso.rows import Rows, as_tensor
from fastaniso.state import Neighbors
from fastaniso.statistics import neighbors as statistics
from fastaniso.statistics.metric import Nearest
from fastaniso.statistics.pairs import cosine_error

MAX_K = 128
_SPARE = 4  # candidates beyond the k asked for, among which float64 distances may choose
_FAR = 0.9  # cosines below which √(2 − 2c) keeps six digits of float32's
_NUMBERS = 2**18  # of rows held in float64 at once
_SAME = 1e-14  # distance of unit rows that is rounding


def nearest_neighbors(
    hidden: Any,
    k: int,
    other: Any = None,
    *,
    mask: Any = None,
    other_mask: Any = None,
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
    precision: str = "exact",
    backend: str = "auto",
    invalid: str = "raise",
) -> NearestNeighbors:
    """The k largest cosines of each row with the other rows, itself excluded, or with the rows of ``other``.

    ``cosines, indices = nearest_neighbors(hidden, 10)``: both ``[..., k]`` on hidden's device, largest first; cosines
    float32 (float64 of float64 rows), indices int64, counted over all leading axes. Of equal cosines the smaller index
    comes first. A masked row, or with ``invalid="omit"`` one that cannot be normalised, is nobody's neighbour and has
    −inf and −1. Exact, O(n² d) time; memory is that of the result and a bounded part.

    Args:
        hidden: ``[..., d]`` float32, float64, float16 or bfloat16: tensor, NumPy array or anything with DLPack.
        k: Neighbours, 1 to 128 and at most as many as there are candidates.
        other: A second set ``[..., d]`` of the same dtype on the same device, or None.
        mask: Bool ``[...]``, True keeps a row; ``other_mask`` the same for ``other``.
        other_mask: See ``mask``.
        memory_limit: ``MemoryError`` before the run if it takes more beside the input (bytes, or such as "2 GB").
        progress: True for a bar on stderr, or a function that is given a ``Progress`` after each tile; more than a
            tile takes some memory and time to merge.
        precision: "exact", or "fast": float32 rows on a GPU are rounded to float16 when they are multiplied, some 1e-5
            of a cosine for a sixth of the products. Said in the result's provenance; elsewhere it changes nothing.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" refuses rows that are zero or hold NaN or Inf, before the run; "omit" leaves them out.

    Raises:
        InvalidRowsError: A row cannot be normalised and ``invalid="raise"``.
    """
    check_k("k", k)
    sets = as_sets(hidden, other, mask, other_mask, backend=backend, invalid=invalid, precision=precision)
    _check_candidates(sets, k)
    state = _find(sets, k, memory_limit, progress)
    shape = as_tensor(hidden, "hidden").shape[:-1]
    return NearestNeighbors(state.cosines.view(*shape, k), state.indices.view(*shape, k))


def two_nn(
    hidden: Any,
    *,
    share: float = 0.9,
    mask: Any = None,
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
    backend: str = "auto",
    invalid: str = "raise",
) -> TwoNN:
    """Intrinsic dimension of the unit rows: slope through the origin of −log(1 − F) on log(r₂/r₁) (Facco et al. 2017).

    r₁ and r₂ are the distances ‖u_i − u_j‖ of a row to its two nearest, F the rank of its ratio over the number of
    rows; the ``share`` of the rows with the smallest ratios is fitted. Of rows with one direction one is kept, the
    others are counted as duplicates. Distances of near rows are computed from the rows in float64. nan where fewer than
    three rows are left. Other arguments as for ``nearest_neighbors``.

    Known wrong: 1 − c in place of the distance √(2 − 2c), which halves the dimension; a line with an intercept.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: expected a number between 0 and 1, got {share!r}")
    sets = as_sets(hidden, None, mask, None, backend=backend, invalid=invalid)
    found = _distances(sets, 2, memory_limit, progress)
    dimension, used = statistics.two_nn(found.distances, share)
    return TwoNN(
        dimension=float(dimension),
        n=sets.n,
        dim=sets.rows.dim,
        used=used,
        share=share,
        duplicates=found.duplicates,
        uncertain=found.uncertain,
        dropped=sets.dropped,
        provenance=found.provenance,
        version=__version__,
    )


def levina_bickel(
    hidden: Any,
    k: int = 10,
    *,
    average: str = "inverse",
    mask: Any = None,
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
    backend: str = "auto",
    invalid: str = "raise",
) -> LevinaBickel:
    """Intrinsic dimension of the unit rows, 1/m̂ = Σ_{j<k} log(r_k/r_j)/(k − 1) averaged over rows (``"inverse"``).

    r_j are the distances ‖u_i − u_j‖ of a row to its k ≥ 2 nearest (Levina & Bickel 2004). ``average="inverse"``
    averages 1/m̂, the maximum likelihood of all rows together (MacKay & Ghahramani 2005); ``"direct"`` averages m̂, as
    the paper does, and is larger. Duplicates, distances and other arguments as for ``two_nn``.

    Known wrong: 1 − c in place of the distance √(2 − 2c), which halves the dimension; the row itself among its k.
    """
    check_k("k", k)
    if k < 2:
        raise ValueError(f"k: expected 2 or more, the ratio of two distances, got {k}")
    if average not in ("inverse", "direct"):
        raise ValueError(f"average: expected 'inverse' (of 1/m̂) or 'direct' (of m̂), got {average!r}")
    sets = as_sets(hidden, None, mask, None, backend=backend, invalid=invalid)
    found = _distances(sets, k, memory_limit, progress)
    _check_candidates(sets, k)
    return LevinaBickel(
        dimension=float(statistics.levina_bickel(found.distances, k, average)),
        k=k,
        average=average,
        n=sets.n,
        dim=sets.rows.dim,
        used=len(found.distances) if found.distances.shape[1] >= k else 0,
        duplicates=found.duplicates,
        uncertain=found.uncertain,
        dropped=sets.dropped,
        provenance=found.provenance,
        version=__version__,
    )


def hubness(
    hidden: Any,
    k: int = 10,
    other: Any = None,
    *,
    mask: Any = None,
    other_mask: Any = None,
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
    backend: str = "auto",
    invalid: str = "raise",
) -> Hubness:
    """How unevenly rows are among the k nearest of others: skewness of the k-occurrence, Robin Hood index, antihubs.

    The occurrence of a candidate is the number of rows that have it among their k largest cosines; candidates are the
    rows themselves, or those of ``other``. Arguments as for ``nearest_neighbors``.

    Known wrong: a row as its own neighbour, which leaves no antihubs.
    """
    check_k("k", k)
    sets = as_sets(hidden, other, mask, other_mask, backend=backend, invalid=invalid)
    _check_candidates(sets, k)
    candidates = sets.rows if sets.others is None else sets.others
    state = _find(sets, k, memory_limit, progress, beside=sets.rows.count * k * 8 + candidates.count * 40)
    kept = kept_rows(candidates, sets.n if sets.others_n is None else sets.others_n)
    return statistics.describe_hubness(state, candidates.count, kept, n=sets.n, dropped=sets.dropped)


def nearest_of(
    sets: Sets,
    *,
    k: int,
    distances: bool,
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
) -> Nearest:
    """The nearest rows of each row, and with ``distances`` how far they are: of as many as there are, up to k."""
    check_k("k", k)
    rows = sets.rows
    kept = kept_rows(rows, sets.n)
    k = min(k, sets.n - 1)
    if k < 1 or not distances:
        state = (
            _find(sets, k, memory_limit, progress) if k > 0 else Neighbors.empty(rows.dim, 1, device=rows.values.device)
        )
        return Nearest(state, rows.count, kept, state.cosines.new_empty(0, 0, dtype=torch.float64), 0, 0)
    state = _find(sets, min(k + _SPARE, sets.n - 1, MAX_K), memory_limit, progress)
    found = _distances(sets, k, memory_limit, progress, known=state)
    return Nearest(state, rows.count, kept, found.distances, found.duplicates, found.uncertain)


@dataclass(frozen=True)
class _Distances:
    """Distances (m, k) of the rows that count to their nearest, in float64, and what was left out."""

    distances: Tensor
    duplicates: int
    uncertain: int
    provenance: tuple[str, ...]


def _distances(
    sets: Sets,
    k: int,
    memory_limit: int | str | None,
    progress: Report | bool | None,
    *,
    known: Neighbors | None = None,
) -> _Distances:
    """Of the rows without copies, to k others, or to as many as there are; ``known`` are neighbours already found."""
    nothing = _Distances(torch.empty(0, k, dtype=torch.float64, device=sets.rows.values.device), 0, 0, ())
    if sets.n <= k:
        return nothing
    state, distances = _search(sets, k, memory_limit, progress, known=known)
    first = _first_of_equals(state, distances)
    duplicates = int((~first & (state.indices[:, 0] >= 0)).sum())
    left = sets
    if duplicates:
        # Copies would be each other's neighbours, and stand twice among those of other rows.
        rows = sets.rows
        alone = first.view(rows.values.shape[:2]) & (state.indices[:, 0] >= 0).view(rows.values.shape[:2])
        left = replace(sets, rows=Rows(rows.values, alone.contiguous()), n=sets.n - duplicates)
        if left.n < 2:
            return replace(nothing, duplicates=duplicates)
        k = min(k, left.n - 1)
        state, distances = _search(left, k, memory_limit, progress)
    usable = (state.indices[:, 0] >= 0) & (distances[:, 0] > _SAME)
    # Every other candidate has a cosine of at most the last found, and its rounding.
    last = state.cosines[:, -1].double() + 2 * cosine_error(state.dim, state.provenance)
    everything = state.k == left.n - 1
    uncertain = usable & (distances[:, k - 1].square() > 2 - 2 * last)
    return _Distances(
        distances=distances[usable, :k],
        duplicates=sets.n - int(usable.sum()),
        uncertain=0 if everything else int(uncertain.sum()),
        provenance=tuple(sorted(state.provenance)),
    )


def _search(
    sets: Sets,
    k: int,
    memory_limit: int | str | None,
    progress: Report | bool | None,
    *,
    known: Neighbors | None = None,
) -> tuple[Neighbors, Tensor]:
    """The state of a few candidates more than k, and their distances in float64, the nearest first."""
    found = min(k + _SPARE, sets.n - 1, MAX_K)
    # Distances, in and out of order, and the order itself.
    beside = sets.rows.count * found * 32 + 6 * 8 * _NUMBERS
    state = known or _find(sets, found, memory_limit, progress, beside=beside)
    distances = (2 - 2 * state.cosines.double()).clamp(min=0).sqrt()
    near = torch.nonzero(state.cosines[:, 0] > _FAR)[:, 0]
    at_once = max(_NUMBERS // (state.k * sets.rows.dim), 1)
    for part in torch.split(near, at_once):
        rows = gather(sets.rows, part).values[0]
        # Of a row without enough candidates any other will do: its distances are not looked at.
        others = gather(sets.rows, state.indices[part].flatten().clamp(min=0)).values[0]
        distances[part] = statistics.unit_distances(rows, others.view(len(part), state.k, sets.rows.dim))
    distances, order = distances.sort(dim=1, stable=True)
    return replace(state, indices=state.indices.gather(1, order)), distances


def _first_of_equals(state: Neighbors, distances: Tensor) -> Tensor:
    """Rows that no row of a smaller index equals in direction."""
    own = torch.arange(len(distances), device=distances.device)[:, None]
    return ~((distances <= _SAME) & (state.indices >= 0) & (state.indices < own)).any(1)


def _find(
    sets: Sets, k: int, memory_limit: int | str | None, progress: Report | bool | None, *, beside: int = 0
) -> Neighbors:
    """The neighbours; ``beside`` are the bytes that the caller takes beside them."""
    rows, others = sets.rows, sets.others
    values = rows.values
    if memory_limit is not None:
        planned = plan(
            rows.count,
            rows.dim,
            neighbors=k,
            other=None if others is None else others.count,
            dtype=values.dtype,
            backend=sets.backend,
            device=values.device,
        )
        if sets.backend == "cpu" and progress:
            beside += neighbor_tile_bytes(
                rows.count, sets.others_n, rows.dim, k, dtype=values.dtype, backend=sets.backend
            )
        replace(planned, working_bytes=planned.working_bytes + beside).check(memory_limit)
    # The CPU's kernel takes any number of rows in its stride. Tiles find the same, and tell how far they are; but what
    # each of them finds has to be merged.
    whole = sets.backend == "cpu" and not progress
    size = max(rows.count, 1) if whole else rows_in_block(rows.dim, values.dtype, sets.backend, neighbors=True)
    other_size = size if others is None or not whole else max(others.count, 1)
    blocks, other_blocks = blocks_of(rows, size), None if others is None else blocks_of(others, other_size)
    dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
    # What one tile finds is the result: no lists are needed to merge it with.
    count = rows.count if len(blocks) > 1 or len(other_blocks or blocks) > 1 else 0
    empty = Neighbors.empty(rows.dim, k, 0, count, values.device, dtype=dtype)
    states = visit_neighbors(empty, blocks, other_blocks, backend=sets.backend, precision=sets.precision, in_place=True)
    # Of one set, each of a pair's rows is a candidate of the other.
    return run(states, empty, sets.visited * (2 if others is None else 1), progress)


def check_k(name: str, k: int) -> None:
    """Refuse what is no number of neighbours that kernels find."""
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= MAX_K:
        raise ValueError(f"{name}: expected an int from 1 to {MAX_K}, got {k!r}")


def _check_candidates(sets: Sets, k: int) -> None:
    candidates = max(sets.n - 1, 0) if sets.others_n is None else sets.others_n
    if k > candidates:
        whose = "each row has as many other rows" if sets.others_n is None else "other has as many rows"
        raise ValueError(f"k: expected at most {candidates} ({whose} that count), got {k}; ask for fewer")
