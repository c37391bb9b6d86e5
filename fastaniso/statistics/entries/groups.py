"""Metrics of rows in groups."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fastaniso.statistics import cosine
from fastaniso.statistics.metric import GROUPS, Metric, Options, States


def _group_cosine(states: States, options: Options) -> Mapping[str, Tensor]:
    assert states.groups is not None
    within = cosine.within_sum_and_pairs(states.groups)
    between = cosine.group_sum_and_pairs(states.groups) - within
    return {"within": cosine.ratio(*within.unbind()), "between": cosine.ratio(*between.unbind())}


ENTRIES = (
    Metric(
        name="group_cosine",
        structure="groups",
        range="[-1, 1]",
        convention="pooled over the ordered pairs i != j of one group; over those of two groups",
        source="Cai et al. 2021",
        cost="O(n d), two reads; O(G d) memory",
        needs=lambda options: {GROUPS: {}},
        also=("within", "between", "intra-cosine", "inter-cosine"),
        value=_group_cosine,
    ),
)
