"""What takes a second look at the rows: each row against the mean or the sum that a first pass of an op found.

The second pass runs a block of rows at a time, in float64, on the rows' device: rows may be a memory-map or a source of
stored vectors larger than memory, and nothing of n·d numbers is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastaniso.ops import dispatch as ops
from fastaniso.planning.plan import plan
from fastaniso.result import CosineToMean, Dropped
from fastaniso.rows import Blocks, Rows, as_blocks, as_rows, as_tensor
from fastaniso.state import Gram, Moments
from fastaniso.statistics import cosine
from fastaniso.statistics import second_pass as statistics
from fastaniso.statistics.host import InvalidRowsError, check_invalid_option, dropped_rows, to_host

LEGACY = ("one-sided",)
_NUMBERS = 2**17  # of rows held in float64 at once
_NUMBERS_ON_A_GPU = 2**24
_READ_AT_ONCE = 2**24  # of the numbers of stored rows that a kernel gets at once
_ROWS_OF_A_PRODUCT = 512  # at least, so that a product of matrices keeps its speed


def row_mean_cosines(hidden: Any, *, mask: Any = None, backend: str = "auto", invalid: str = "raise") -> Tensor:
    """Mean cosine of each row to the n−1 others, (u_i·s − ‖u_i‖²)/(n−1), u = x/‖x‖ and s = Σu.

    In [−1, 1]; the mean over rows is ``mean_cosine``. Two passes of O(n d), no pair is formed, float64 accumulators.
    ``torchmetrics.functional.pairwise_cosine_similarity(x, reduction="mean")`` sets the row's cosine to itself to zero
    and divides by n: (n−1)/n of this.

    Args:
        hidden: ``[..., d]`` float32, float64, float16 or bfloat16: tensor, NumPy array or anything with DLPack; or a
            source of stored vectors, as ``open_source`` gives.
        mask: Bool ``[...]``, True keeps a row.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" refuses rows that are zero or hold NaN or Inf; "omit" leaves them out.

    Returns:
        ``[...]`` float64 on hidden's device (rows of a source, ``[n]``); nan for rows left out, and for all when n < 2.

    Raises:
        InvalidRowsError: A row cannot be normalised and ``invalid="raise"``.
    """
    first = _first_pass(hidden, mask, backend, invalid)
    found = torch.empty(first.rows.count, dtype=torch.float64, device=first.rows.device)
    for start, block in _blocks(first.rows):
        measured = statistics.measured(block.values, block.mask)
        found[start : start + block.count] = statistics.mean_cosine_to_others(measured, first.moments)
    return found.view(as_tensor(hidden, "hidden").shape[:-1]) if isinstance(first.rows, Rows) else found


def cosine_to_mean(hidden: Any, *, mask: Any = None, backend: str = "auto", invalid: str = "raise") -> CosineToMean:
    """Cosine of each row to the mean row, u_i·m/‖m‖ with m = x̄ of the rows as they are: mean, std, quantiles.

    In [−1, 1]: near 1 where one drift makes all rows alike (Godey et al. 2024, §3.3). Long rows weigh more in m; for
    the mean of unit rows pass unit rows. Two passes of O(n d), 8 bytes a row. nan when there is no row, or the mean is
    exactly zero. Of centred rows it is undefined: what rounding leaves of their mean has any direction. Arguments as
    for ``row_mean_cosines``.
    """
    first = _first_pass(hidden, mask, backend, invalid)
    direction = statistics.mean_direction(first.moments)
    found = torch.empty(first.rows.count, dtype=torch.float64, device=first.rows.device)
    for start, block in _blocks(first.rows):
        found[start : start + block.count] = statistics.measured(block.values, block.mask).cosines(direction)
    return statistics.describe_cosines(found, first.moments, first.n, first.dropped)


def centered_mean_cosine(hidden: Any, *, mask: Any = None, backend: str = "auto", invalid: str = "raise") -> float:
    """Mean cosine over the n(n−1) ordered pairs i ≠ j of the centred rows x_i − x̄: what is left without the drift.

    In [−1/(n−1), 1], and the lower end when all rows are equally far from the mean; where it stays above, the mean
    alone did not make the rows alike (Godey et al. 2024, §3.3). Three passes of O(n d): the mean, refined in float64 so
    that a large drift costs no digits, then the sums of (x − x̄)/‖x − x̄‖. To centre the *unit* rows without
    normalising them again is another quantity: −tr S/(n(n−1)) of their scatter, never above zero.

    A row that equals the mean has no direction: it raises, or with ``invalid="omit"`` is left out like a zero row. nan
    when fewer than two rows are left. Arguments as for ``row_mean_cosines``.
    """
    first = _first_pass(hidden, mask, backend, invalid)
    mean, mean_norm = _refined_mean(first)
    state = Moments.empty(first.rows.dim, first.rows.device)
    for start, block in first.kept():
        centred = statistics.without_mean(block.values, mean, mean_norm)
        state = state.merge(ops.moments(Rows(centred, block.mask), backend=backend, start=start))
    counts, value = to_host(state.counts, cosine.mean(state))
    if invalid == "raise" and counts[2]:
        raise InvalidRowsError(
            f"hidden: row {int(counts[4])} equals the mean of the rows ({int(counts[2])} such row(s)) and has no "
            "direction once the mean is taken away; drop such rows with mask=, or pass invalid='omit'"
        )
    return float(value[0])


def partition_isotropy(
    hidden: Any,
    *,
    unit: bool = False,
    legacy: str | None = None,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """I(W) = min Z(c)/max Z(c), Z(c) = Σ_i exp(c·x_i) over c in ± the d eigenvectors of XᵀX, rows uncentred.

    In (0, 1], 1 is isotropic (Mu & Viswanath 2018). Sums by log-sum-exp in float64; O(n d²) twice, O(d²) memory and a
    block of rows.

    The scale of the rows matters: twice as long rows score lower, so values of two layers or models compare only
    where their norms do; ``unit=True`` takes u = x/‖x‖ instead of x. Where eigenvalues are equal their eigenvectors
    are any basis, and the score is that of the one found; of fewer rows than dimensions some c have Z = n.

    Signs of eigenvectors are arbitrary, so both are taken. Published code takes the one that its solver returned:
    ``legacy="one-sided"`` takes one, too, that with the largest entry positive, and is larger or equal. Code that
    iterates over the *rows* of the matrix of eigenvectors (they are its columns) has directions without a meaning and
    scores far too high.

    Args:
        hidden: As for ``row_mean_cosines``.
        unit: Of unit rows: free of scale.
        legacy: None, or "one-sided".
        mask: Bool ``[...]``, True keeps a row.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" refuses rows that are zero or hold NaN or Inf; "omit" leaves them out.
        memory_limit: ``MemoryError`` before the run if it takes more beside the input (bytes, or such as "2 GB").

    Returns:
        A number in (0, 1] (0 where the quotient is below float64); nan when there is no row.
    """
    if legacy is not None and legacy not in LEGACY:
        raise ValueError(f"legacy: expected None or 'one-sided', got {legacy!r}")
    check_invalid_option(invalid)
    rows = as_blocks(hidden, mask)
    _check_memory(rows, memory_limit, backend)
    gram = _gram(rows, unit, backend)
    (counts,) = to_host(gram.counts)
    dropped_rows(counts, invalid)
    directions = statistics.second_moment_directions(gram, unit=unit)
    blocks = _kept_blocks(rows, everything=int(counts[0]) == rows.count, unit=unit)
    logs = statistics.log_partition(blocks, directions, both=legacy is None)
    least, largest = to_host(torch.stack(logs.aminmax()))[0].tolist()
    return math.exp(least - largest) if counts[0] else math.nan


def alignment(
    hidden: Any,
    positives: Any,
    *,
    alpha: float = 2.0,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
) -> float:
    """Mean of ‖u_i − u_i⁺‖^α over the given pairs, row i of ``hidden`` with row i of ``positives``, both unit rows.

    In [0, 2^α], 0 where each pair has one direction; α = 2 gives 2 − 2·(mean cosine of the pairs) (Wang & Isola 2020).
    From differences of float64 unit rows, so that near pairs keep their digits. O(n d). Rows have to be normalised,
    which is done here; of rows as they are, the value is one of norms. ``positives`` has the shape and device of
    ``hidden``; ``mask`` (bool ``[...]``) keeps a pair where True. With ``invalid="omit"`` a pair is left out if either
    row is zero or holds NaN or Inf. nan when there is no pair. Other arguments as for ``row_mean_cosines``.
    """
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha: expected a number above 0, got {alpha!r}")
    given, paired = as_tensor(hidden, "hidden"), as_tensor(positives, "positives")
    if paired.shape != given.shape:
        raise ValueError(f"positives: expected the shape of hidden, {tuple(given.shape)}, got {tuple(paired.shape)}")
    if paired.device != given.device:
        raise ValueError(
            f"positives: expected it on {given.device} beside hidden, got {paired.device}; "
            "pass positives.to(hidden.device)"
        )
    rows, others = as_rows(hidden, mask), as_rows(positives, mask, name="positives")
    check_invalid_option(invalid)
    dropped_rows(to_host(ops.moments(rows, backend=backend).counts)[0], invalid)
    dropped_rows(to_host(ops.moments(others, backend=backend).counts)[0], invalid, name="positives")
    total = torch.zeros(2, dtype=torch.float64, device=others.values.device)
    for (_, block), (_, other) in zip(*map(_blocks, _row_by_row(rows, others)), strict=True):
        ours, theirs = (statistics.measured(each.values, each.mask) for each in (block, other))
        total += statistics.distances_to_power(ours, theirs, alpha)
    distance, pairs = to_host(total)[0].tolist()
    return distance / pairs if pairs else math.nan


class _First(NamedTuple):
    """Rows and what the first pass found."""

    rows: Blocks
    moments: Moments
    n: int
    dropped: Dropped

    def kept(self) -> Iterator[tuple[int, Rows]]:
        """The rows in blocks with a mask that also leaves out what the first pass did."""
        everything = not self.dropped.zero and not self.dropped.nonfinite
        for start, block in _blocks(self.rows):
            if everything:
                yield start, block
            else:
                mask = statistics.kept_rows(block.values, block.mask)
                yield start, Rows(block.values, mask.view(block.values.shape[:2]))


def _first_pass(hidden: Any, mask: Any, backend: str, invalid: str) -> _First:
    check_invalid_option(invalid)
    rows = as_blocks(hidden, mask)
    moments = _moments(rows, backend)
    (counts,) = to_host(moments.counts)
    return _First(rows, moments, int(counts[0]), dropped_rows(counts, invalid))


def _moments(rows: Blocks, backend: str) -> Moments:
    """Of rows in memory in one call, of stored ones in as many as there are blocks."""
    if isinstance(rows, Rows):
        return ops.moments(rows, backend=backend)
    state = Moments.empty(rows.dim, rows.device)
    for start, block in rows.blocks(max(_READ_AT_ONCE // rows.dim, 1)):
        state = state.merge(ops.moments(block, backend=backend, start=start))
    return state


def _gram(rows: Blocks, unit: bool, backend: str) -> Gram:
    """The scatter of x, or of u, in the same way."""
    if isinstance(rows, Rows):
        return ops.gram(rows, raw=not unit, unit=unit, backend=backend)
    state = Gram.empty(rows.dim, rows.device, raw=not unit, unit=unit)
    for start, block in rows.blocks(max(_READ_AT_ONCE // rows.dim, 1)):
        state = state.merge(ops.gram(block, raw=not unit, unit=unit, backend=backend, start=start))
    return state


def _refined_mean(first: _First) -> tuple[Tensor, Tensor]:
    """The mean row (d,) to float64's precision, and the mean norm: kernels add float32 rows in float32 for a while."""
    n = first.moments.counts[0].clamp(min=1)
    mean = first.moments.sums[0] / n
    total = torch.zeros_like(mean)
    for _, block in first.kept():
        total += statistics.sum_about(block.values, block.mask, mean)
    return mean + total / n, first.moments.totals[0] / n


def _blocks(rows: Blocks, *, least: int = 1) -> Iterator[tuple[int, Rows]]:
    """Views of rows that are few enough to be float64, and at least so many, each with the index of its first row."""
    return rows.blocks(_rows_at_once(rows, least))


def _rows_at_once(rows: Blocks, least: int) -> int:
    return max((_NUMBERS if rows.device.type == "cpu" else _NUMBERS_ON_A_GPU) // rows.dim, least)


def _kept_blocks(rows: Blocks, *, everything: bool, unit: bool) -> Iterator[Tensor]:
    """The rows that count, or their unit rows, in float64 blocks (m, d)."""
    for _, block in _blocks(rows, least=_ROWS_OF_A_PRODUCT):
        measured = statistics.measured(block.values, block.mask) if unit else None
        values = statistics.wide_rows(block.values) if measured is None else measured.units
        yield values if everything else values[statistics.kept_rows(block.values, block.mask)]


def _row_by_row(rows: Rows, others: Rows) -> tuple[Rows, Rows]:
    """Both as views of one shape (outer, inner, d), so that their blocks hold rows of the same indices."""
    ours, theirs = rows.values.shape, others.values.shape
    if ours == theirs:
        return rows, others
    if 1 not in (ours[0], theirs[0]):
        raise ValueError(
            "positives: its rows lie at other strides than those of hidden and cannot be read beside them; "
            "pass hidden.contiguous() and positives.contiguous()"
        )
    return (_shaped(rows, theirs), others) if ours[0] == 1 else (rows, _shaped(others, ours))


def _shaped(rows: Rows, shape: torch.Size) -> Rows:
    return Rows(rows.values.view(shape), None if rows.mask is None else rows.mask.view(shape[:2]))


def _check_memory(rows: Blocks, memory_limit: int | str | None, backend: str) -> None:
    if memory_limit is None:
        return
    planned = plan(rows.count, rows.dim, gram="raw", dtype=rows.dtype, backend=backend, device=rows.device)
    block = min(_rows_at_once(rows, _ROWS_OF_A_PRODUCT), rows.count) * rows.dim * 8
    # A block as float64, kept, unit and scaled; its products, their negatives and what log-sum-exp makes of them.
    working = max(planned.working_bytes, 8 * rows.dim**2 + 7 * block)
    replace(planned, working_bytes=working, remedy="pass fewer dimensions: their second moments are held").check(
        memory_limit
    )
