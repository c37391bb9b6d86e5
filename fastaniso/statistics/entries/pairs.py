"""Metrics of all pairs of rows."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fastaniso.statistics import pairs
from fastaniso.statistics.metric import PAIRS, Metric, Options, States

EVERY_PAIR = "O(n^2 d), every pair once"
BINS = 8192


def _uniformity(states: States, options: Options) -> Tensor:
    assert states.pairs is not None
    at = states.pairs.uniformity_t.index(float(options["t"]))
    return pairs.uniformity(states.pairs.counts, states.pairs.exponentials)[at]


def _quantiles(states: States, options: Options) -> Mapping[str, Tensor]:
    assert states.pairs is not None
    found = pairs.histogram(states.pairs).quantile(options["q"])
    made = states.pairs.exponentials.new_tensor
    return {f"{q:g}": made(value) for q, value in zip(options["q"], found.value, strict=True)}


def _extrema(states: States, options: Options) -> Mapping[str, Tensor]:
    assert states.pairs is not None
    assert states.pairs.extrema is not None
    assert states.pairs.extrema_at is not None
    least, largest = pairs.extrema(states.pairs.extrema, states.pairs.extrema_at)[:, 0].unbind()
    return {"min": least, "max": largest}


ENTRIES = (
    Metric(
        name="uniformity",
        structure="pairs",
        range="[-4t, 0]",
        convention="log of the mean of exp(-t |u_i - u_j|^2) over the pairs i < j",
        source="Wang & Isola 2020",
        cost=EVERY_PAIR,
        options={"t": 2.0},
        needs=lambda options: {PAIRS: {"uniformity_t": (float(options["t"]),)}},
        value=_uniformity,
    ),
    Metric(
        name="cosine_quantiles",
        structure="pairs",
        range="[-1, 1]",
        convention="least c with a share q or more of the pairs i < j at or below it, to within half a bin",
        source="",
        cost=EVERY_PAIR,
        options={"q": (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)},
        needs=lambda options: {PAIRS: {"bins": BINS}},
        also=("median cosine", "percentiles"),
        value=_quantiles,
    ),
    Metric(
        name="cosine_extrema",
        structure="pairs",
        range="[-1, 1]",
        convention="least and largest cosine over the pairs i < j",
        source="",
        cost=EVERY_PAIR,
        needs=lambda options: {PAIRS: {"extrema": True}},
        value=_extrema,
    ),
)
