"""The public functions of sums: each body reads as the flow hidden → rows → op → state → statistic."""

from __future__ import annotations

import math
from typing import Any

from fastaniso.functional.spectral.scoring import gram_of
from fastaniso.ops import dispatch as ops
from fastaniso.pairing.sets import numbered
from fastaniso.result import DimensionContributions, Drift, GroupCosine, Norms, OutlierDimensions
from fastaniso.rows import as_rows
from fastaniso.state import Gram, Moments
from fastaniso.statistics import cosine, outliers
from fastaniso.statistics import drift as drifts
from fastaniso.statistics.describe import group_cosine as by_group
from fastaniso.statistics.host import check_invalid_option, dropped_rows, to_host


def mean_cosine(
    hidden: Any,
    other: Any = None,
    *,
    mask: Any = None,
    other_mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
) -> float:
    """Mean cosine over the n(n−1) ordered pairs i ≠ j; with ``other``, over the n·m pairs of a row of each set.

    (‖s‖² − Σ‖u‖²)/(n(n−1)) and s_x·s_y/(n·m), with u = x/‖x‖ and s = Σu: one linear pass, no pair is formed.

    Known wrong: torchmetrics' ``pairwise_cosine_similarity(x).mean()`` is (n−1)/n times this, its diagonal is zero; the
    mean of a full matrix counts n cosines of 1; n in place of Σ‖u‖² leaves the rounding of unit rows, some 1e-8, where
    the mean is near zero.

    Args:
        hidden: ``[..., d]`` float32, float64, float16 or bfloat16: tensor, NumPy array or anything with DLPack.
        other: A second set ``[..., d]`` on the same device, or None.
        mask: Bool ``[...]``, True keeps a row; ``other_mask`` the same for ``other``.
        other_mask: See ``mask``.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" refuses rows that are zero or hold NaN or Inf; "omit" leaves them out.

    Returns:
        A number in [−1/(n−1), 1], accumulated in float64; nan when there is no pair (n < 2, or an empty set).

    Raises:
        InvalidRowsError: A row cannot be normalised and ``invalid="raise"``.
    """
    state = _moments(hidden, mask, backend, invalid)
    if other is None:
        # On the host, where a step takes a tenth of what torch takes for a tensor this small.
        counts, totals, sums = to_host(state.counts, state.totals, state.sums)
        dropped_rows(counts, invalid)
        n, unit_sum = int(counts[0]), sums[2 * state.dim : 3 * state.dim]
        return float(cosine.over_pairs(unit_sum, totals[4], n)) / (n * (n - 1)) if n > 1 else math.nan
    state_other = _moments(other, other_mask, backend, invalid, name="other")
    _check_same_space(state, state_other)
    counts, counts_other, total = to_host(state.counts, state_other.counts, cosine.sum_between(state, state_other))
    dropped_rows(counts, invalid)
    dropped_rows(counts_other, invalid, name="other")
    pairs = counts[0] * counts_other[0]
    return float(total[0] / pairs) if pairs else math.nan


def cosine_std(
    hidden: Any,
    other: Any = None,
    *,
    mask: Any = None,
    other_mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """Standard deviation of the cosine over the n(n−1) ordered pairs i ≠ j; with ``other``, over the n·m pairs.

    From the central scatter S of the unit rows, in one O(n d²) pass and O(d²) memory; nothing is formed as
    E[c²] − mean². In a collapsed cloud one term is of fourth order in the spread: float32 rows keep about two digits
    where 1 − mean is 1e-6 and none below 1e-8, float64 rows keep theirs; pass ``hidden.double()`` there. In [0, 1].
    Arguments as for ``mean_cosine``; ``memory_limit`` in bytes or as a string such as "2 GB". nan when there is no
    pair.

    Known wrong: √(E[c²] − mean²) in a collapsed cloud, which has no digit left; a full matrix with its n cosines of 1.
    """
    state = gram_of(hidden, mask, backend, invalid, memory_limit, unit=True)
    if other is None:
        counts, std = to_host(state.counts, cosine.std(state))
    else:
        state_other = gram_of(other, other_mask, backend, invalid, memory_limit, unit=True, name="other")
        _check_same_space(state, state_other)
        counts, counts_other, std = to_host(state.counts, state_other.counts, cosine.std_between(state, state_other))
        dropped_rows(counts_other, invalid, name="other")
    dropped_rows(counts, invalid)
    return float(std[0])


def group_cosine(
    hidden: Any, groups: Any, *, mask: Any = None, backend: str = "auto", invalid: str = "raise"
) -> GroupCosine:
    """Mean cosine within each group (ordered pairs i ≠ j), between each pair of groups, and pooled.

    (‖s_g‖² − Σ‖u‖²)/(n_g(n_g−1)) within, s_a·s_b/(n_a n_b) between; pooled over pairs of rows, not over groups.
    ``groups`` are integer labels ``[...]``, any values; O(n d) time, O(G d) memory. A label of masked rows only is no
    group. Words in contexts (SelfSim, Ethayarajh 2019) are groups by word, sequences groups by sequence.

    Known wrong: the mean of the groups' means for ``pooled_within``, which counts a pair of a small group more.
    """
    check_invalid_option(invalid)
    rows = as_rows(hidden, mask)
    labels, ids = numbered(rows, hidden, groups)
    state = ops.group_moments(rows, ids.view(rows.values.shape[:2]), len(labels), backend=backend)
    return by_group(state, labels, invalid=invalid)


def dimension_contributions(
    hidden: Any, *, mask: Any = None, backend: str = "auto", invalid: str = "raise"
) -> DimensionContributions:
    """Contribution of each dimension to the mean cosine, (s_k² − Σu_k²)/(n(n−1)); norms are those of the full rows.

    They sum to the mean cosine over the ordered pairs i ≠ j (Timkey & van Schijndel 2021, exact where the paper
    samples). One read, O(n d). nan when n < 2.

    Known wrong: contributions of a sample of pairs; the cosine of rows that lack a dimension, which has other norms.
    """
    state = _moments(hidden, mask, backend, invalid)
    counts, mean, values = to_host(state.counts, cosine.mean(state), cosine.contributions(state))
    dropped_rows(counts, invalid)
    return DimensionContributions(values, float(mean[0]))


def drift(hidden: Any, *, mask: Any = None, backend: str = "auto", invalid: str = "raise") -> Drift:
    """Drift of the mean: ‖x̄‖ in units of x; without scale ‖x̄‖/E‖x‖ and ‖ū‖, u = x/‖x‖ (Godey et al. 2024, §3.3).

    The latter two in [0, 1]; ‖ū‖² is the mean cosine with the pairs i = j counted. One read, O(n d). nan when n = 0.

    Known wrong: ‖x̄‖ compared between layers, whose norms differ.
    """
    state = _moments(hidden, mask, backend, invalid)
    counts, values = to_host(state.counts, drifts.drift(state))
    dropped_rows(counts, invalid)
    return Drift(*values.tolist())


def norms(hidden: Any, *, mask: Any = None, backend: str = "auto", invalid: str = "raise") -> Norms:
    """Mean, standard deviation (over n, not n−1), minimum and maximum of the norms ‖x‖. One read, O(n d).

    Known wrong: norms of float16 rows in float16, whose squares overflow from 256 on.
    """
    state = _moments(hidden, mask, backend, invalid)
    counts, values = to_host(state.counts, drifts.norms(state))
    dropped_rows(counts, invalid)
    return Norms(*values.tolist())


def outlier_dimensions(
    hidden: Any, *, factor: float = 5.0, mask: Any = None, backend: str = "auto", invalid: str = "raise"
) -> OutlierDimensions:
    """Dimensions that stand out: rms r_k over rows, its kurtosis E[r⁴]/(E[r²])² and max/median over the d dimensions.

    Kurtosis is 1 where all r_k are equal and d where one is all (He et al. 2024);
    ``dimensions`` are those whose variance is ``factor`` = 5 or more times the mean variance (Rudman et al. 2023), the
    largest first. One O(n d) read. Arguments otherwise as for ``mean_cosine``.

    A variance comes from Σx² and Σx: where it is below some 3e-7 of x̄² (float32 rows), it is rounding.

    Known wrong: the *excess* kurtosis over all n·d numbers, which mixes rows of different length with dimensions of
    different size.
    """
    state = _moments(hidden, mask, backend, invalid)
    sizes, variances = outliers.root_mean_squares(state), outliers.variances(state)
    counts, rms, spread, shape, ratio, stand_out = to_host(
        state.counts,
        sizes,
        variances,
        outliers.kurtosis(sizes),
        outliers.max_over_median(sizes),
        outliers.stand_out(variances, factor),
    )
    dropped_rows(counts, invalid)
    order = (-spread).argsort(kind="stable")
    return OutlierDimensions(
        rms=rms,
        variance=spread,
        kurtosis=float(shape[0]),
        max_over_median=float(ratio[0]),
        dimensions=tuple(int(k) for k in order if stand_out[k]),
        factor=factor,
    )


def backend_for(hidden: Any, backend: str = "auto") -> str:
    """The backend that would run for ``hidden``: "cpu", "triton" or "reference"; raises what running would raise."""
    return ops.resolve(backend, as_rows(hidden).values.device)


def _moments(hidden: Any, mask: Any, backend: str, invalid: str, *, name: str = "hidden") -> Moments:
    check_invalid_option(invalid)
    return ops.moments(as_rows(hidden, mask, name=name), backend=backend)


def _check_same_space(state: Moments | Gram, other: Moments | Gram) -> None:
    if other.dim != state.dim:
        raise ValueError(f"other: expected rows of {state.dim} numbers as in hidden, got {other.dim}")
    if other.counts.device != state.counts.device:
        raise ValueError(
            f"other: expected it on {state.counts.device} beside hidden, got {other.counts.device}; "
            "pass other.to(hidden.device)"
        )
