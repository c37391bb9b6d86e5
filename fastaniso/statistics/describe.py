"""All statistics of a state as one ``Description``, brought to the host in one transfer."""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaniso._version import __version__
from fastaniso.result import Description, DimensionContributions, Drift, GroupCosine, Norms
from fastaniso.state import Gram, GroupMoments, Moments
from fastaniso.statistics import cosine, spectrum
from fastaniso.statistics import drift as drifts
from fastaniso.statistics.host import dropped_group_rows, dropped_rows, to_host

ROWS_PER_DIMENSION = 10
"""Below this many rows a dimension the spectrum of a sample is visibly narrower than that of its source."""

_TOP = 10


def describe(state: Moments | Gram, groups: GroupMoments | None = None, *, invalid: str = "raise") -> Description:
    """Every statistic that ``state`` (and ``groups``, of the same rows) can give."""
    nothing = state.totals.new_empty(0)
    raw = state if isinstance(state, Gram) and state.scatter is not None else None
    unit = state if isinstance(state, Gram) and state.unit_scatter is not None else None
    second_moments = nothing if raw is None else spectrum.eigenvalues(raw, center=False)
    counts, mean, contributions, drift, norms, std, spectral, eigenvalues, grouped, dropped_groups = to_host(
        state.counts,
        cosine.mean(state),
        cosine.contributions(state),
        drifts.drift(state),
        drifts.norms(state),
        nothing if unit is None else cosine.std(unit),
        nothing if raw is None else _spectral(raw, second_moments),
        second_moments,
        nothing if groups is None else _pooled(groups),
        nothing if groups is None else groups.dropped,
    )
    n = int(counts[0])
    if groups is not None:
        dropped_group_rows(dropped_groups, groups.groups, invalid)
    dropped = dropped_rows(counts, invalid)
    within, between = (None, None) if groups is None else _within_and_between(grouped)
    by_dimension = DimensionContributions(contributions, float(mean[0]))
    return Description(
        n=n,
        dim=state.dim,
        pairs=n * (n - 1),
        dropped=dropped,
        mean_cosine=float(mean[0]),
        cosine_std=float(std[0]) if unit is not None else None,
        drift=Drift(*drift.tolist()),
        norms=Norms(*norms.tolist()),
        participation_ratio=float(spectral[0]) if raw is not None else None,
        isoscore=float(spectral[1]) if raw is not None else None,
        effective_rank=float(spectral[2]) if raw is not None else None,
        top_dimensions=tuple(zip(*(a.tolist() for a in by_dimension.top(_TOP)), strict=True)),
        mean_cosine_without_top3=by_dimension.mean_without_top(3),
        groups=None if groups is None else groups.groups,
        within_groups=within,
        between_groups=between,
        exact=True,
        accumulator="float64",
        provenance=tuple(sorted(state.provenance)),
        notes=(note,) if raw is not None and (note := few_rows(n, state.dim)) else (),
        version=__version__,
        contributions=by_dimension,
        eigenvalues=eigenvalues / max(n, 1) if raw is not None else None,
    )


def few_rows(n: int, dim: int) -> str | None:
    """What to say about spectral scores of so few rows, or None when there are enough."""
    if n >= ROWS_PER_DIMENSION * dim:
        return None
    return (
        f"spectral scores of {n:,} rows of dimension {dim} are biased low: an isotropic source would score a "
        f"participation ratio of {1 / (1 / max(n, 1) + 1 / dim):.4g}; take at least "
        f"{ROWS_PER_DIMENSION * dim:,} rows ({ROWS_PER_DIMENSION} a dimension)"
    )


def group_cosine(groups: GroupMoments, labels: Tensor, *, invalid: str = "raise") -> GroupCosine:
    """Within each group, between each pair, pooled; ``labels`` (G,) name the groups."""
    dropped, sums, counts, within = to_host(groups.dropped, _pooled(groups), groups.counts, cosine.group_means(groups))
    pooled_within, pooled_between = _within_and_between(sums)
    return GroupCosine(
        labels=labels.cpu().numpy(),
        counts=counts.astype("int64"),
        within=within,
        pooled_within=pooled_within,
        pooled_between=pooled_between,
        dropped=dropped_group_rows(dropped, groups.groups, invalid),
        _unit_means=cosine.ratio(groups.unit_sum, groups.counts[:, None]),
    )


def _spectral(gram: Gram, eigenvalues: Tensor) -> Tensor:
    return torch.stack(
        (spectrum.participation_ratio(gram), spectrum.isoscore(gram), spectrum.effective_rank(eigenvalues))
    )


def _pooled(groups: GroupMoments) -> Tensor:
    return torch.cat((cosine.within_sum_and_pairs(groups), cosine.group_sum_and_pairs(groups)))


def _within_and_between(pooled: NDArray[Any]) -> tuple[float, float]:
    within, within_pairs, total, pairs = pooled.tolist()
    return _divide(within, within_pairs), _divide(total - within, pairs - within_pairs)


def _divide(total: float, pairs: float) -> float:
    return total / pairs if pairs else math.nan
