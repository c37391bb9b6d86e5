"""All statistics of a state as one ``Description``, brought to the host in one transfer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaniso._version import __version__
from fastaniso.result import Description, DimensionContributions, Drift, GroupCosine, Norms
from fastaniso.state import Gram, GroupMoments, Moments, Pairs
from fastaniso.statistics import cosine, spectrum
from fastaniso.statistics import drift as drifts
from fastaniso.statistics.catalogue import Asked
from fastaniso.statistics.host import dropped_group_rows, dropped_rows, to_host
from fastaniso.statistics.metric import Nearest, States, Value

ROWS_PER_DIMENSION = 10
"""Below this many rows a dimension the spectrum of a sample is visibly narrower than that of its source."""

_TOP = 10


def describe(
    state: Moments | Gram,
    groups: GroupMoments | None = None,
    *,
    invalid: str = "raise",
    asked: Sequence[Asked] = (),
    pairs: Pairs | None = None,
    nearest: Nearest | None = None,
    passes: Mapping[tuple[str, Any], Any] | None = None,
) -> Description:
    """Every statistic that ``state`` (and ``groups``, of the same rows) can give, and the metrics asked for.

    ``pairs``, ``nearest`` and ``passes`` are what those metrics need beside.
    """
    states = States(state, groups, pairs, nearest, passes or {})
    nothing = state.totals.new_empty(0)
    raw = state if isinstance(state, Gram) and state.scatter is not None else None
    unit = state if isinstance(state, Gram) and state.unit_scatter is not None else None
    second_moments = nothing if raw is None else states.spectra.eigenvalues(center=False)
    values = [entry.metric.value(states, entry.options) for entry in asked if entry.metric.value is not None]
    counts, mean, contributions, drift, norms, std, spectral, eigenvalues, grouped, dropped_groups, *found = to_host(
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
        *(part for value in values for part in ((value,) if isinstance(value, Tensor) else value.values())),
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
        metrics=_named(asked, values, found),
        exact=True,
        accumulator="float64",
        provenance=tuple(sorted(state.provenance)),
        notes=_notes(n, state, asked, nearest),
        version=__version__,
        contributions=by_dimension,
        eigenvalues=eigenvalues / max(n, 1) if raw is not None else None,
        metric_conventions={entry.label: entry.convention for entry in asked},
    )


def few_rows(n: int, dim: int) -> str | None:
    """What to say about spectral scores of so few rows, or None when there are enough."""
    if n >= ROWS_PER_DIMENSION * dim:
        return None
    return (
        f"spectral scores of {n:,} rows of dimension {dim} are biased towards few directions: an isotropic source "
        f"would score a participation ratio of {1 / (1 / max(n, 1) + 1 / dim):.4g} instead of {dim}; take at least "
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
    ratio = spectrum.participation_ratio_of(gram)
    return torch.stack((ratio, spectrum.isoscore(ratio, gram.dim), spectrum.effective_rank(eigenvalues)))


def _named(
    asked: Sequence[Asked], values: Sequence[Value], found: Sequence[NDArray[Any]]
) -> dict[str, float | dict[str, float]]:
    """The values by the names they go by: numbers, or numbers by name."""
    numbers = iter(float(array[0]) for array in found)
    return {
        entry.label: next(numbers) if isinstance(value, Tensor) else {name: next(numbers) for name in value}
        for entry, value in zip(asked, values, strict=True)
    }


def _notes(n: int, state: Moments | Gram, asked: Sequence[Asked], nearest: Nearest | None) -> tuple[str, ...]:
    notes = []
    raw = isinstance(state, Gram) and state.scatter is not None
    if (raw or any(entry.metric.few_rows for entry in asked)) and (note := few_rows(n, state.dim)):
        notes.append(note)
    if nearest is not None and nearest.duplicates:
        notes.append(f"distances of neighbours leave out {nearest.duplicates:,} copies of other rows")
    if nearest is not None and nearest.uncertain:
        notes.append(
            f"{nearest.uncertain:,} rows have neighbours that rounding cannot tell from others: pass hidden.double()"
        )
    return tuple(notes)


def _pooled(groups: GroupMoments) -> Tensor:
    return torch.cat((cosine.within_sum_and_pairs(groups), cosine.group_sum_and_pairs(groups)))


def _within_and_between(pooled: NDArray[Any]) -> tuple[float, float]:
    within, within_pairs, total, pairs = pooled.tolist()
    return _divide(within, within_pairs), _divide(total - within, pairs - within_pairs)


def _divide(total: float, pairs: float) -> float:
    return total / pairs if pairs else math.nan
