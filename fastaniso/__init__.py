"""Exact streaming cosine and isotropy statistics over millions of Transformer hidden states."""

from typing import Any

from fastaniso._version import __version__
from fastaniso.accumulator import Accumulator
from fastaniso.functional import (
    backend_for,
    cosine_std,
    describe,
    dimension_contributions,
    drift,
    effective_rank,
    group_cosine,
    isoscore,
    mean_cosine,
    norms,
    participation_ratio,
)
from fastaniso.grouped import group_pairs
from fastaniso.neighborhood import hubness, levina_bickel, nearest_neighbors, two_nn
from fastaniso.pairwise import cosine_extrema, cosine_histogram, cosine_quantiles, pairs, uniformity
from fastaniso.passes import (
    alignment,
    centered_mean_cosine,
    cosine_to_mean,
    partition_isotropy,
    row_mean_cosines,
)
from fastaniso.plan import Plan, plan
from fastaniso.result import (
    CosineToMean,
    Description,
    DimensionContributions,
    Drift,
    GroupCosine,
    GroupPairs,
    Histogram,
    Hubness,
    LevinaBickel,
    Norms,
    PairStatistics,
    TwoNN,
)
from fastaniso.state import (
    CorruptStateError,
    Gram,
    GroupMoments,
    Moments,
    Neighbors,
    Pairs,
    StateMismatchError,
    load_state,
    save_state,
)
from fastaniso.statistics.host import InvalidRowsError

__all__ = [
    "Accumulator",
    "CorruptStateError",
    "CosineToMean",
    "Description",
    "DimensionContributions",
    "Drift",
    "Gram",
    "GroupCosine",
    "GroupMoments",
    "GroupPairs",
    "Histogram",
    "Hubness",
    "InvalidRowsError",
    "LevinaBickel",
    "Moments",
    "Neighbors",
    "Norms",
    "PairStatistics",
    "Pairs",
    "Plan",
    "StateMismatchError",
    "TwoNN",
    "__version__",
    "alignment",
    "backend_for",
    "centered_mean_cosine",
    "cosine_extrema",
    "cosine_histogram",
    "cosine_quantiles",
    "cosine_std",
    "cosine_to_mean",
    "describe",
    "dimension_contributions",
    "drift",
    "effective_rank",
    "group_cosine",
    "group_pairs",
    "hubness",
    "isoscore",
    "levina_bickel",
    "load_state",
    "mean_cosine",
    "measure",
    "nearest_neighbors",
    "norms",
    "pairs",
    "participation_ratio",
    "partition_isotropy",
    "plan",
    "row_mean_cosines",
    "save_state",
    "scan",
    "two_nn",
    "uniformity",
]

_LAZY = ("measure", "scan")


def __getattr__(name: str) -> Any:
    """``scan`` and ``measure`` on first use: what they need is not imported before."""
    if name in _LAZY:
        from fastaniso import scanning

        return getattr(scanning, name)
    raise AttributeError(f"module 'fastaniso' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return __all__
