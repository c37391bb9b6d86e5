"""Metrics of one linear read of the rows."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fastaniso.statistics import cosine, outliers
from fastaniso.statistics import drift as drifts
from fastaniso.statistics.metric import Metric, Options, States

LINEAR = "O(n d), one read"


def _contributions(states: States, options: Options) -> Mapping[str, Tensor]:
    values = cosine.contributions(states.linear).sort(descending=True).values
    return {"largest": values[0], "without_top3": values[3:].sum()}


def _drift(states: States, options: Options) -> Mapping[str, Tensor]:
    return dict(zip(("norm_of_mean", "relative", "unit"), drifts.drift(states.linear).unbind(), strict=True))


def _norms(states: States, options: Options) -> Mapping[str, Tensor]:
    return dict(zip(("mean", "std", "min", "max"), drifts.norms(states.linear).unbind(), strict=True))


ENTRIES = (
    Metric(
        name="mean_cosine",
        structure="linear",
        range="[-1/(n-1), 1]",
        convention="over the n(n-1) ordered pairs i != j",
        source="Ethayarajh 2019; Godey et al. 2024",
        cost=LINEAR,
        also=("anisotropy", "average cosine similarity", "avgcos"),
        value=lambda states, options: cosine.mean(states.linear),
    ),
    Metric(
        name="dimension_contributions",
        structure="linear",
        range="they sum to mean_cosine",
        convention="(s_k^2 - sum u_k^2) / (n(n-1)), norms of the full rows",
        source="Timkey & van Schijndel 2021",
        cost=LINEAR,
        also=("rogue dimensions",),
        value=_contributions,
    ),
    Metric(
        name="drift",
        structure="linear",
        range="[0, inf); without scale [0, 1]",
        convention="norm of the mean; over the mean norm; norm of the mean unit row",
        source="Godey et al. 2024",
        cost=LINEAR,
        value=_drift,
    ),
    Metric(
        name="norms",
        structure="linear",
        range="(0, inf)",
        convention="of the rows; std over n",
        source="",
        cost=LINEAR,
        value=_norms,
    ),
    Metric(
        name="outlier_dimensions",
        structure="linear",
        range="kurtosis [1, d], max/median [1, inf), count 0 to d",
        convention="rms r_k: E[r^4]/E[r^2]^2 and max/median over dimensions; variance >= factor x the mean variance",
        source="He et al. 2024; Rudman et al. 2023",
        cost=LINEAR,
        options={"factor": 5.0},
        also=("outliers", "rogue dimensions", "kurtosis"),
        value=lambda states, options: outliers.summary(states.linear, options["factor"]),
    ),
)
