"""Metrics of nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fastaniso.statistics import neighbors
from fastaniso.statistics.metric import NEIGHBORS, Metric, Nearest, Options, States

EVERY_PAIR = "O(n^2 d), every pair once"


def _nearest(states: States) -> Nearest:
    assert states.nearest is not None
    return states.nearest


def _two_nn(states: States, options: Options) -> Tensor:
    return neighbors.two_nn(_nearest(states).distances, options["share"])[0]


def _levina_bickel(states: States, options: Options) -> Tensor:
    return neighbors.levina_bickel(_nearest(states).distances, options["k"], options["average"])


def _hubness(states: States, options: Options) -> Mapping[str, Tensor]:
    nearest = _nearest(states)
    counts = neighbors.occurrences(nearest.state.indices[:, : options["k"]], nearest.candidates)
    values = neighbors.hubness(counts if nearest.kept is None else counts[nearest.kept])
    if nearest.state.k < options["k"]:
        values = torch.full_like(values, torch.nan)  # there are not as many candidates
    return dict(zip(("skewness", "robin_hood", "antihubs", "largest"), values.unbind(), strict=True))


ENTRIES = (
    Metric(
        name="two_nn",
        structure="neighbors",
        range="(0, inf)",
        convention="slope through the origin of -log(1 - F) on log(r2 / r1) of unit rows; copies left out",
        source="Facco et al. 2017",
        cost=EVERY_PAIR,
        options={"share": 0.9},
        needs=lambda options: {NEIGHBORS: {"k": 2, "distances": True}},
        also=("intrinsic dimension",),
        value=_two_nn,
    ),
    Metric(
        name="levina_bickel",
        structure="neighbors",
        range="(0, inf]",
        convention="1 / mean of 1/m, 1/m = sum over j < k of log(r_k / r_j) / (k - 1), of unit rows; copies left out",
        source="Levina & Bickel 2004; MacKay & Ghahramani 2005",
        cost=EVERY_PAIR,
        options={"k": 10, "average": "inverse"},
        needs=lambda options: {NEIGHBORS: {"k": options["k"], "distances": True}},
        also=("intrinsic dimension", "mle", "lid"),
        value=_levina_bickel,
    ),
    Metric(
        name="hubness",
        structure="neighbors",
        range="skewness any; Robin Hood and antihubs [0, 1]",
        convention="k-occurrence: third central moment / std^3; half the sum of |N - mean| / sum N; share of zeros",
        source="Radovanovic et al. 2010; Feldbauer et al. 2018",
        cost=EVERY_PAIR,
        options={"k": 10},
        needs=lambda options: {NEIGHBORS: {"k": options["k"], "distances": False}},
        also=("k-occurrence", "skewness", "antihubs"),
        value=_hubness,
    ),
)
