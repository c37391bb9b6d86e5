"""Metrics as a report names them: in words, in groups, with their conventions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fastaniso.runs.attention import HEADS, head_label
from fastaniso.runs.run import Run
from fastaniso.statistics.catalogue import metrics

_LABELS = {
    "mean_cosine": "Mean cosine",
    "cosine_std": "Std of the cosine",
    "within_sequence": "Mean cosine within a sequence",
    "across_sequences": "Mean cosine across two sequences",
    "mean_cosine_without_top3": "Mean cosine without the top 3 dimensions",
    "dimension_contributions.largest": "Largest contribution of a dimension",
    "self_clustering": "Self-clustering",
    "drift.norm_of_mean": "Drift ‖mean‖",
    "drift.relative": "Drift ‖mean‖ / mean norm",
    "drift.unit": "Drift of unit rows",
    "norms.mean": "Norm, mean",
    "norms.std": "Norm, std",
    "norms.min": "Norm, least",
    "norms.max": "Norm, largest",
    "isoscore": "IsoScore",
    "isoscore_star": "IsoScore*",
    "rankme": "RankMe",
    "nesum": "NESum",
    "mev": "MEV",
    "alpha_req": "α-ReQ",
}

_CONVENTIONS = {
    "within_sequence": "pooled over the ordered pairs of tokens of one sequence",
    "across_sequences": "over the ordered pairs of tokens of two sequences",
    "mean_cosine_without_top3": "the mean cosine less the three largest contributions, norms of the full rows",
}

_GROUPS = {
    "Cosine": (
        *("mean_cosine", "cosine_std", "within_sequence", "across_sequences", "mean_cosine_without_top3"),
        *("dimension_contributions", "self_clustering"),
    ),
    "Drift and norms": ("drift", "norms"),
    "Outlier dimensions": ("outlier_dimensions",),
}
_SPECTRUM = "Spectrum"


class Named(NamedTuple):
    """A metric of a report: ``name`` as in ``RunSite.values``, in words, its group, and how it is defined."""

    name: str
    label: str
    group: str
    convention: str


def named_metrics(runs: Iterable[Run]) -> tuple[Named, ...]:
    """The metrics that any site of any run has, group by group, in the order of the first that has them."""
    found = dict.fromkeys(name for run in runs for site in run.sites for name in site.values)
    named = [_named(name) for name in found]
    order = [*_GROUPS, _SPECTRUM]
    # The order of a group is that of the words above, and then of the catalogue.
    ranks = {name: rank for rank, name in enumerate(_LABELS)}
    return tuple(sorted(named, key=lambda metric: (order.index(metric.group), ranks.get(metric.name, len(ranks)))))


def label_of(name: str) -> str:
    """A metric in words."""
    if name in _LABELS:
        return _LABELS[name]
    if name.startswith(HEADS):
        return f"{head_label(name.removeprefix(HEADS))}, mean of heads"
    words = name.replace("_", " ").replace(".", ", ")
    return words[:1].upper() + words[1:]


def _named(name: str) -> Named:
    base = name.partition(".")[0].partition("(")[0]
    group = next((group for group, names in _GROUPS.items() if base in names), _SPECTRUM)
    entry = metrics().get(base)
    convention = _CONVENTIONS.get(name) or ("" if entry is None else entry.convention)
    return Named(name, label_of(name), group, convention)
