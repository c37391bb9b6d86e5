"""Metrics that look at the rows again, once the first pass has found their mean or their second moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fastaniso.statistics.metric import AGAIN, Metric, Needs, Options, States

TWICE = "O(n d), two reads"


def _again(name: str, **about: Any) -> Metric:
    """A metric that the function of its name computes from rows: ``States.passes`` holds what that returned."""

    def needs(options: Options) -> Needs:
        return {AGAIN: {"calls": ((name, tuple(options.items())),)}}

    def value(states: States, options: Options) -> Tensor | Mapping[str, Tensor]:
        found = states.passes[name, tuple(options.items())]
        made = states.linear.totals.new_tensor
        fields = about.get("fields")
        return made(found) if fields is None else {field: made(getattr(found, field)) for field in fields}

    described = {key: text for key, text in about.items() if key != "fields"}
    return Metric(name=name, structure="second pass", needs=needs, value=value, **described)


ENTRIES = (
    _again(
        "centered_mean_cosine",
        range="[-1/(n-1), 1]",
        convention="mean cosine of x - mean over the ordered pairs i != j; rows that equal the mean left out",
        source="Godey et al. 2024",
        cost="O(n d), three reads",
    ),
    _again(
        "cosine_to_mean",
        range="[-1, 1]",
        convention="cosine of each row to the mean row: mean and std over rows",
        source="Godey et al. 2024",
        cost=TWICE,
        fields=("mean", "std"),
    ),
    _again(
        "partition_isotropy",
        range="(0, 1]",
        convention="min Z / max Z, Z(c) = sum of exp(c . x), c over both signs of the eigenvectors of X'X, uncentred",
        source="Mu & Viswanath 2018",
        cost="O(n d^2) twice",
        options={"unit": False, "legacy": None},
        also=("partition function", "i(w)", "isotropy"),
    ),
    Metric(
        name="row_mean_cosines",
        structure="second pass",
        range="[-1, 1]",
        convention="of each row to the n-1 others, (u_i . s - |u_i|^2) / (n-1)",
        source="",
        cost=TWICE,
    ),
    Metric(
        name="alignment",
        structure="linear",
        range="[0, 2^alpha]",
        convention="mean of |u_i - u_i+|^alpha over given pairs",
        source="Wang & Isola 2020",
        cost="O(n d), two reads of both sets",
        options={"alpha": 2.0},
    ),
)
