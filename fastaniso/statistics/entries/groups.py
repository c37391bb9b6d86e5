"""Metrics of rows in groups."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fastaniso.state import GroupMoments
from fastaniso.statistics import cosine, words
from fastaniso.statistics.metric import GROUPS, Metric, Options, States

GROUP_BY_GROUP = "O(n d), two reads; a few numbers a row and a group"


def _counted(states: States) -> GroupMoments:
    """The groups that have a row."""
    assert states.groups is not None
    return words.some_groups(states.groups, states.groups.counts > 0)


def _group_cosine(states: States, options: Options) -> Mapping[str, Tensor]:
    assert states.groups is not None
    within = cosine.within_sum_and_pairs(states.groups)
    between = cosine.group_sum_and_pairs(states.groups) - within
    return {"within": cosine.ratio(*within.unbind()), "between": cosine.ratio(*between.unbind())}


def _self_similarity(states: States, options: Options) -> Mapping[str, Tensor]:
    groups = _counted(states)
    enough = groups.counts >= options["min_count"]
    mean, baseline = cosine.group_means(groups)[enough].mean(), cosine.mean(states.linear)
    inter = words.between_instances(*words.instance_sums(groups), groups.groups)
    return {"mean": mean, "adjusted": mean - baseline, "baseline": baseline, "inter": inter}


def _inter_cosine(states: States, options: Options) -> Tensor:
    groups = _counted(states)
    return words.between_instances(*words.instance_sums(groups), groups.groups)


def _sequence_cosine(states: States, options: Options) -> Mapping[str, Tensor]:
    groups = _counted(states)
    pooled = _group_cosine(states, options)
    within = cosine.group_means(groups)[groups.counts > 1].mean()
    return {"within": within, "pooled_within": pooled["within"], "across": pooled["between"]}


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
    Metric(
        name="self_similarity",
        structure="groups",
        range="[-1, 1]",
        convention="mean cosine over the ordered pairs i != j of a word's rows, mean over words; less that of all rows",
        source="Ethayarajh 2019",
        cost=GROUP_BY_GROUP,
        options={"min_count": 2},
        needs=lambda options: {GROUPS: {}},
        also=("selfsim", "intra-cosine", "self similarity"),
        value=_self_similarity,
    ),
    Metric(
        name="inter_cosine",
        structure="groups",
        range="[-1/(W-1), 1]",
        convention="over the ordered pairs of different types, expectation over one row of each",
        source="Cai et al. 2021",
        cost=GROUP_BY_GROUP,
        needs=lambda options: {GROUPS: {}},
        also=("inter-cosine",),
        value=_inter_cosine,
    ),
    Metric(
        name="sequence_cosine",
        structure="groups",
        range="[-1, 1]",
        convention="over the ordered pairs i != j of a sequence, mean over sequences, and pooled; over pairs across",
        source="Shi et al. 2022",
        cost=GROUP_BY_GROUP,
        needs=lambda options: {GROUPS: {}},
        also=("oversmoothing", "across"),
        value=_sequence_cosine,
    ),
    Metric(
        name="intra_sentence_similarity",
        structure="groups",
        range="[-1, 1]",
        convention="mean cosine of a sentence's rows to their mean row, mean over sentences; less that of all rows",
        source="Ethayarajh 2019",
        cost=GROUP_BY_GROUP,
        options={"min_count": 2},
        also=("intrasim",),
    ),
    Metric(
        name="rank_collapse",
        structure="groups",
        range="[0, 1]",
        convention="|X - 1 m'|_F / |X|_F of a sequence's rows X and their mean m, mean over sequences",
        source="Dong et al. 2021",
        cost=GROUP_BY_GROUP,
        options={"min_count": 2},
        also=("rank collapse", "residual", "oversmoothing"),
    ),
    Metric(
        name="word_mev",
        structure="groups",
        range="[1/min(n_w, d), 1]",
        convention="sigma_1^2 / sum of sigma^2 of a word's uncentred rows, mean over words; less that of all rows",
        source="Ethayarajh 2019",
        cost="O(n d min(n_w, d)), two reads; a few numbers a row and a group",
        options={"min_count": 2},
        also=("mev", "maximum explainable variance"),
    ),
    Metric(
        name="lidar",
        structure="groups",
        range="[1, min(G - 1, d)]",
        convention="exp of the entropy of the eigenvalues of W^-1/2 B W^-1/2, B between classes, W within + delta",
        source="Thilak et al. 2024",
        cost="O(n d^2 + d^3), two reads",
        options={"delta": 1e-4, "epsilon": 1e-7},
        also=("linear discriminant analysis rank", "lda rank"),
        few_rows=True,
    ),
    Metric(
        name="mean_cosine_interval",
        structure="groups",
        range="[-1, 1]",
        convention="mean cosine over the ordered pairs i != j, 95 % by leaving out each of the independent groups",
        source="Efron & Stein 1981",
        cost=GROUP_BY_GROUP,
        options={"across": False},
        also=("jackknife", "confidence interval", "standard error"),
    ),
)
