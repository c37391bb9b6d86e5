"""Every pair of rows visited once, tile by tile: the whole distribution of the cosine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict

from numpy.typing import ArrayLike

from fastaniso.pairing.sets import Sets, as_sets, run
from fastaniso.pairing.tiles import visit_pairs
from fastaniso.planning.plan import plan
from fastaniso.progress import Report
from fastaniso.result import Extrema, Histogram, PairStatistics, Quantile
from fastaniso.sampling import check_sample, design, sample_pairs
from fastaniso.state import Pairs
from fastaniso.statistics import pairs as statistics
from fastaniso.statistics.host import to_host

BINS = (64, 8192)
_MAX_T = 20.0


class Options(TypedDict):
    """What is asked of all pairs beside moments and extrema."""

    bins: int
    thresholds: tuple[float, ...]
    uniformity_t: tuple[float, ...]


def pairs(
    hidden: Any,
    other: Any = None,
    *,
    mask: Any = None,
    other_mask: Any = None,
    bins: int = 2048,
    thresholds: Sequence[float] = (),
    uniformity_t: float = 2.0,
    sample: float | None = None,
    seed: int = 0,
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
    precision: str = "exact",
    backend: str = "auto",
    invalid: str = "raise",
) -> PairStatistics:
    """Cosines over the n(n−1)/2 unordered pairs i < j; with ``other``, over the n·m pairs of a row of each set.

    Histogram, quantiles with their bounds, moments, extrema with their rows, uniformity and shares above thresholds,
    from one visit of each pair: O(n² d) time and bounded memory. Products are float32 (float64 for float64 rows), sums
    float64, counts int64. The same input gives the same bits, whatever the number of threads.

    Args:
        hidden: ``[..., d]`` float32, float64, float16 or bfloat16: tensor, NumPy array or anything with DLPack.
        other: A second set ``[..., d]`` of the same dtype on the same device, or None.
        mask: Bool ``[...]``, True keeps a row; ``other_mask`` the same for ``other``.
        other_mask: See ``mask``.
        bins: Equal bins over [−1, 1], 64 to 8192: a quantile is known to within half a bin.
        thresholds: Cosines t for which the share of pairs with c > t is counted exactly.
        uniformity_t: t of log E exp(2t(c − 1)), above 0 and up to 20 (Wang & Isola 2020 take 2).
        sample: None visits all pairs. A number of pairs, or a relative error of the mean at 95 % (below 1), visits
            tiles of the pair grid, drawn without replacement after the rows were put in random order, and gives
            unbiased estimates with 95 % intervals. Where that would cost no less, all pairs are visited. (The mean and
            std alone are exact, and take no pairs at all, in ``mean_cosine`` and ``cosine_std``.)
        seed: Of the sample.
        memory_limit: ``MemoryError`` before the run if it takes more beside the input (bytes, or such as "2 GB").
        progress: True for a bar on stderr, or a function that is given a ``Progress`` after each tile.
        precision: "exact", or "fast": float32 rows on a GPU are rounded to float16 when they are multiplied, some 1e-5
            of a cosine for a sixth of the products. Said in the result's provenance; elsewhere it changes nothing.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" refuses rows that are zero or hold NaN or Inf, before the run; "omit" leaves them out.

    Raises:
        InvalidRowsError: A row cannot be normalised and ``invalid="raise"``.
    """
    options = checked_options(bins, thresholds, uniformity_t)
    if sample is not None:
        check_sample(sample)
    sets = as_sets(hidden, other, mask, other_mask, backend=backend, invalid=invalid, precision=precision)
    asked = sets.asked(**options)
    check_memory(sets, memory_limit, bins, sample=sample)
    drawn = None if sample is None else design(sets.n, sets.others_n, sets.rows.dim, sample, sets.backend)
    if drawn is not None:
        estimate = sample_pairs(sets, asked, drawn, seed=seed, progress=progress)
        if estimate is not None:
            return estimate
    state = visit(sets, asked, progress)
    return statistics.pair_statistics(
        state, n=sets.n, dropped=sets.dropped, others=sets.others_n, dropped_others=sets.dropped_others
    )


def cosine_histogram(
    hidden: Any,
    other: Any = None,
    *,
    bins: int = 2048,
    mask: Any = None,
    other_mask: Any = None,
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
    backend: str = "auto",
    invalid: str = "raise",
) -> Histogram:
    """Counts of the cosines of the n(n−1)/2 unordered pairs i < j, or of n·m pairs, in equal bins over [−1, 1].

    ``counts, edges = cosine_histogram(hidden)``: int64 (B,) and float64 (B + 1,), the last bin closed. Arguments as for
    ``pairs``.
    """
    _check_bins(bins)
    sets = as_sets(hidden, other, mask, other_mask, backend=backend, invalid=invalid)
    check_memory(sets, memory_limit, bins)
    return statistics.histogram(visit(sets, sets.asked(bins=bins, moments=False, extrema=False), progress))


def cosine_quantiles(
    hidden: Any,
    q: ArrayLike,
    other: Any = None,
    *,
    bins: int = 8192,
    mask: Any = None,
    other_mask: Any = None,
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
    backend: str = "auto",
    invalid: str = "raise",
) -> Quantile:
    """Quantiles of the cosine over the n(n−1)/2 unordered pairs i < j, or n·m pairs, and the bound on their error.

    The q-quantile is the least c such that a share q or more of the pairs have a cosine ≤ c; the bound is half a bin
    and the rounding of a cosine. ``q`` is a number or an array of them. Other arguments as for ``pairs``.
    """
    _check_bins(bins)
    sets = as_sets(hidden, other, mask, other_mask, backend=backend, invalid=invalid)
    check_memory(sets, memory_limit, bins)
    return statistics.histogram(visit(sets, sets.asked(bins=bins, moments=False), progress)).quantile(q)


def cosine_extrema(
    hidden: Any,
    other: Any = None,
    *,
    mask: Any = None,
    other_mask: Any = None,
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
    backend: str = "auto",
    invalid: str = "raise",
) -> Extrema:
    """Least and largest cosine over the unordered pairs i < j, or over n·m pairs: ``min`` and ``max``, (value, i, j).

    Rows are counted over all leading axes; of equal cosines the first in order of (i, j). nan, −1, −1 where there is
    no pair. Arguments as for ``pairs``.
    """
    sets = as_sets(hidden, other, mask, other_mask, backend=backend, invalid=invalid)
    check_memory(sets, memory_limit, 0)
    state = visit(sets, sets.asked(moments=False), progress)
    assert state.extrema is not None
    assert state.extrema_at is not None
    return statistics.to_extrema(*to_host(statistics.extrema(state.extrema, state.extrema_at)))


def uniformity(
    hidden: Any,
    other: Any = None,
    *,
    t: float = 2.0,
    mask: Any = None,
    other_mask: Any = None,
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
    backend: str = "auto",
    invalid: str = "raise",
) -> float:
    """log E exp(−t‖u_i − u_j‖²) over the n(n−1)/2 unordered pairs i < j, or n·m pairs (Wang & Isola 2020).

    −t‖u − v‖² = 2t(c − 1), so it lies in [−4t, 0]; more negative is more uniform. 0 < t ≤ 20. nan where there is no
    pair. Other arguments as for ``pairs``.

    Known wrong: with pairs i = j, each e⁰ = 1, or of rows that are not normalised.
    """
    _check_t("t", t)
    sets = as_sets(hidden, other, mask, other_mask, backend=backend, invalid=invalid)
    check_memory(sets, memory_limit, 0)
    state = visit(sets, sets.asked(moments=False, extrema=False, uniformity_t=(float(t),)), progress)
    (value,) = to_host(statistics.uniformity(state.counts, state.exponentials))
    return float(value[0])


def visit(sets: Sets, asked: Pairs, progress: Report | bool | None) -> Pairs:
    """Every pair of the sets, tile by tile."""
    visits = visit_pairs(asked, *sets.blocks(), backend=sets.backend, precision=sets.precision)
    return run(visits, asked, sets.visited, progress)


def visited_pairs(
    sets: Sets,
    held: Mapping[str, Any],
    *,
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
) -> Pairs:
    """Every pair of the sets, with what a state is to hold: arguments of ``Sets.asked``, all left out by default."""
    for t in held.get("uniformity_t", ()):
        _check_t("t", t)
    asked = sets.asked(**{"moments": False, "extrema": False, **held})
    check_memory(sets, memory_limit, asked.bins)
    return visit(sets, asked, progress)


def checked_options(bins: int, thresholds: Sequence[float], uniformity_t: float) -> Options:
    """What ``Sets.asked`` takes, or an error that says what was expected."""
    _check_bins(bins)
    _check_t("uniformity_t", uniformity_t)
    checked = tuple(float(t) for t in thresholds)
    if any(not -1 <= t <= 1 for t in checked):
        raise ValueError(f"thresholds: expected cosines from -1 to 1, got {list(checked)}")
    return {"bins": bins, "thresholds": checked, "uniformity_t": (float(uniformity_t),)}


def check_memory(
    sets: Sets, memory_limit: int | str | None, bins: int, *, sample: float | None = None, beside: int = 0
) -> None:
    """``MemoryError`` if a visit takes more, with the bytes that the caller takes beside it."""
    if memory_limit is not None:
        values = sets.rows.values
        planned = plan(
            sets.n,
            sets.rows.dim,
            pairs=True,
            other=sets.others_n,
            bins=bins,
            sample=sample,
            dtype=values.dtype,
            backend=sets.backend,
            device=values.device,
        )
        replace(planned, working_bytes=planned.working_bytes + beside).check(memory_limit)


def _check_bins(bins: int) -> None:
    if not isinstance(bins, int) or isinstance(bins, bool) or not BINS[0] <= bins <= BINS[1]:
        raise ValueError(f"bins: expected an int from {BINS[0]} to {BINS[1]}, got {bins!r}")


def _check_t(name: str, t: float) -> None:
    # exp(−4t), the least there can be, must not vanish in float32.
    if not 0 < t <= _MAX_T:
        raise ValueError(f"{name}: expected a number above 0 and up to {_MAX_T:g}, got {t!r}")
