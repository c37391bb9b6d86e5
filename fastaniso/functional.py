"""The public functions: each body reads as the flow hidden → rows → op → state → statistic."""

from __future__ import annotations

import math
import warnings
from typing import Any

from torch import Tensor

from fastaniso.accumulator import Accumulator, check_memory
from fastaniso.ops import dispatch as ops
from fastaniso.result import Description, DimensionContributions, Drift, GroupCosine, Norms
from fastaniso.rows import as_rows
from fastaniso.sets import numbered
from fastaniso.state import Gram, Moments
from fastaniso.statistics import cosine, spectrum
from fastaniso.statistics import drift as drifts
from fastaniso.statistics.describe import few_rows
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
    where 1 − mean is 1e-6 and none below 1e-8, float64 rows keep theirs; pass ``hidden.double()`` there. Arguments as
    for ``mean_cosine``; ``memory_limit`` in bytes or as a string such as "2 GB". nan when there is no pair.
    """
    state = _gram(hidden, mask, backend, invalid, memory_limit, "unit")
    if other is None:
        counts, std = to_host(state.counts, cosine.std(state))
    else:
        state_other = _gram(other, other_mask, backend, invalid, memory_limit, "unit", name="other")
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
    samples). nan when n < 2.
    """
    state = _moments(hidden, mask, backend, invalid)
    counts, mean, values = to_host(state.counts, cosine.mean(state), cosine.contributions(state))
    dropped_rows(counts, invalid)
    return DimensionContributions(values, float(mean[0]))


def drift(hidden: Any, *, mask: Any = None, backend: str = "auto", invalid: str = "raise") -> Drift:
    """Drift of the mean: ‖x̄‖ in units of x; without scale ‖x̄‖/E‖x‖ and ‖ū‖, u = x/‖x‖ (Godey et al. 2024, §3.3)."""
    state = _moments(hidden, mask, backend, invalid)
    counts, values = to_host(state.counts, drifts.drift(state))
    dropped_rows(counts, invalid)
    return Drift(*values.tolist())


def norms(hidden: Any, *, mask: Any = None, backend: str = "auto", invalid: str = "raise") -> Norms:
    """Mean, standard deviation (over n, not n−1), minimum and maximum of the norms ‖x‖."""
    state = _moments(hidden, mask, backend, invalid)
    counts, values = to_host(state.counts, drifts.norms(state))
    dropped_rows(counts, invalid)
    return Norms(*values.tolist())


def participation_ratio(
    hidden: Any,
    *,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """tr(C)²/‖C‖_F² of the centred covariance, from 1 (one direction) to d (isotropic); nan when rows do not vary.

    Of n isotropic rows it is 1/(1/n + 1/d), not d: a UserWarning below 10 rows a dimension.
    """
    state = _gram(hidden, mask, backend, invalid, memory_limit, "raw")
    return _spectral_score(state, spectrum.participation_ratio(state), invalid)


def isoscore(
    hidden: Any,
    *,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """IsoScore (Rudman et al. 2022) of the centred covariance, (PR − 1)/(d − 1), from 0 (one direction) to 1.

    PR is ``participation_ratio``: two traces, no eigendecomposition; rows are [n, d], and n < d is allowed. A
    UserWarning below 10 rows a dimension. nan when d = 1 or the rows do not vary.
    """
    state = _gram(hidden, mask, backend, invalid, memory_limit, "raw")
    return _spectral_score(state, spectrum.isoscore(state), invalid)


def effective_rank(
    hidden: Any,
    *,
    center: bool = False,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """exp of the entropy of σ/Σσ, σ the singular values of the *uncentred* rows (``center=True``: of x − x̄).

    Roy & Vetterli 2007; uncentred it is RankMe (Garrido et al. 2023) without its ε. From the eigenvalues of the
    float64 scatter: singular values below √(d·2.2e-16)·σ₁ count as zero. A UserWarning below 10 rows a dimension.
    nan when every singular value is zero.
    """
    state = _gram(hidden, mask, backend, invalid, memory_limit, "raw")
    return _spectral_score(state, spectrum.effective_rank(spectrum.eigenvalues(state, center=center)), invalid)


def describe(
    hidden: Any,
    *,
    mask: Any = None,
    groups: Any = None,
    gram: bool | str = True,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> Description:
    """Everything at once, exact over the n(n−1) ordered pairs i ≠ j: print it, or read its fields.

    ``gram`` True costs O(n d²) and gives the std of the cosine and the spectral scores; "unit" only the std, "raw"
    only the scores, False neither, in one O(n d) pass. ``groups`` are integer labels ``[...]`` and give the mean
    cosine within and between them. Other arguments as for ``cosine_std``.
    """
    rows = as_rows(hidden, mask)
    labels, ids = (None, None) if groups is None else numbered(rows, hidden, groups)
    count = None if labels is None else len(labels)
    check_memory(rows, memory_limit, gram=gram, groups=count, backend=backend)
    accumulator = Accumulator(gram=gram, groups=count, backend=backend, invalid=invalid)
    return accumulator.update(hidden, mask, ids).result()


def backend_for(hidden: Any, backend: str = "auto") -> str:
    """The backend that would run for ``hidden``: "cpu", "triton" or "reference"; raises what running would raise."""
    return ops.resolve(backend, as_rows(hidden).values.device)


def _moments(hidden: Any, mask: Any, backend: str, invalid: str, *, name: str = "hidden") -> Moments:
    check_invalid_option(invalid)
    return ops.moments(as_rows(hidden, mask, name=name), backend=backend)


def _gram(
    hidden: Any,
    mask: Any,
    backend: str,
    invalid: str,
    memory_limit: int | str | None,
    scatter: str,
    *,
    name: str = "hidden",
) -> Gram:
    check_invalid_option(invalid)
    rows = as_rows(hidden, mask, name=name)
    # The state of hidden is held beside that of other.
    check_memory(rows, memory_limit, gram=scatter, backend=backend, accumulate=name == "other")
    return ops.gram(rows, raw=scatter == "raw", unit=scatter == "unit", backend=backend)


def _check_same_space(state: Moments | Gram, other: Moments | Gram) -> None:
    if other.dim != state.dim:
        raise ValueError(f"other: expected rows of {state.dim} numbers as in hidden, got {other.dim}")
    if other.counts.device != state.counts.device:
        raise ValueError(
            f"other: expected it on {state.counts.device} beside hidden, got {other.counts.device}; "
            "pass other.to(hidden.device)"
        )


def _spectral_score(gram: Gram, score: Tensor, invalid: str) -> float:
    counts, value = to_host(gram.counts, score)
    dropped_rows(counts, invalid)
    if note := few_rows(int(counts[0]), gram.dim):
        warnings.warn(note, UserWarning, stacklevel=3)
    return float(value[0])
