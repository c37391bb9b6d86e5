"""Exact streaming cosine and isotropy statistics over millions of Transformer hidden states."""

from importlib import import_module
from typing import Any

from fastaniso._version import __version__
from fastaniso.accumulator import Accumulator
from fastaniso.functional.attention import attention
from fastaniso.functional.describing import describe, describe_state
from fastaniso.functional.grouped import group_pairs
from fastaniso.functional.intervals import mean_cosine_interval, subsample_curve
from fastaniso.functional.lidar import lidar
from fastaniso.functional.linear import (
    backend_for,
    cosine_std,
    dimension_contributions,
    drift,
    group_cosine,
    mean_cosine,
    norms,
    outlier_dimensions,
)
from fastaniso.functional.neighborhood import hubness, levina_bickel, nearest_neighbors, two_nn
from fastaniso.functional.pairwise import cosine_extrema, cosine_histogram, cosine_quantiles, pairs, uniformity
from fastaniso.functional.passes import (
    alignment,
    centered_mean_cosine,
    cosine_to_mean,
    partition_isotropy,
    row_mean_cosines,
)
from fastaniso.functional.spectral import (
    alpha_req,
    condition_number,
    effective_rank,
    isoscore,
    isoscore_star,
    mev,
    nesum,
    participation_ratio,
    rankme,
    self_clustering,
    spectral_entropy,
    stable_rank,
    top_eigenvalue_share,
    variance_explained,
)
from fastaniso.functional.word_mev import word_mev
from fastaniso.functional.words import inter_cosine, intra_sentence_similarity, self_similarity, sequence_cosine
from fastaniso.planning.plan import Plan, plan
from fastaniso.result import (
    AttentionStatistics,
    CosineToMean,
    Description,
    DimensionContributions,
    Drift,
    GroupCosine,
    GroupPairs,
    Histogram,
    Hubness,
    IntraSentenceSimilarity,
    LevinaBickel,
    MeanCosineInterval,
    Norms,
    OutlierDimensions,
    PairStatistics,
    SelfSimilarity,
    SequenceCosine,
    SubsampleCurve,
    TwoNN,
    WordMEV,
)
from fastaniso.state import (
    Attention,
    CorruptStateError,
    Gram,
    GroupMoments,
    HeadMoments,
    Moments,
    Neighbors,
    Pairs,
    StateMismatchError,
    bytes_to_state,
    load_state,
    save_state,
    state_to_bytes,
)
from fastaniso.statistics.catalogue import Catalogue, metrics
from fastaniso.statistics.host import InvalidRowsError
from fastaniso.statistics.metric import Metric

__all__ = [
    "Accumulator",
    "Attention",
    "AttentionStatistics",
    "Catalogue",
    "CorruptStateError",
    "CosineToMean",
    "Description",
    "DimensionContributions",
    "Drift",
    "Gram",
    "GroupCosine",
    "GroupMoments",
    "GroupPairs",
    "HeadMoments",
    "Histogram",
    "Hubness",
    "IntraSentenceSimilarity",
    "InvalidRowsError",
    "LevinaBickel",
    "MeanCosineInterval",
    "Metric",
    "Moments",
    "Neighbors",
    "Norms",
    "OutlierDimensions",
    "PairStatistics",
    "Pairs",
    "Plan",
    "SelfSimilarity",
    "SequenceCosine",
    "StateMismatchError",
    "SubsampleCurve",
    "TwoNN",
    "WordMEV",
    "__version__",
    "alignment",
    "alpha_req",
    "attention",
    "backend_for",
    "bytes_to_state",
    "centered_mean_cosine",
    "compare",
    "condition_number",
    "cosine_extrema",
    "cosine_histogram",
    "cosine_quantiles",
    "cosine_std",
    "cosine_to_mean",
    "describe",
    "describe_state",
    "dimension_contributions",
    "distributed",
    "drift",
    "effective_rank",
    "group_cosine",
    "group_pairs",
    "hubness",
    "integrations",
    "inter_cosine",
    "intra_sentence_similarity",
    "isoscore",
    "isoscore_star",
    "levina_bickel",
    "lidar",
    "load_report",
    "load_run",
    "load_state",
    "mean_cosine",
    "mean_cosine_interval",
    "measure",
    "metrics",
    "mev",
    "nearest_neighbors",
    "nesum",
    "norms",
    "open_source",
    "outlier_dimensions",
    "pairs",
    "participation_ratio",
    "partition_isotropy",
    "plan",
    "probe",
    "probe_attention",
    "rankme",
    "row_mean_cosines",
    "save_state",
    "scan",
    "self_clustering",
    "self_similarity",
    "sequence_cosine",
    "spectral_entropy",
    "stable_rank",
    "state_to_bytes",
    "subsample_curve",
    "tasks",
    "top_eigenvalue_share",
    "transforms",
    "two_nn",
    "uniformity",
    "variance_explained",
    "word_mev",
]

_LAZY = {
    "compare": "runs",
    "distributed": "distributed",
    "integrations": "integrations",
    "load_report": "runs",
    "load_run": "runs",
    "measure": "scanning",
    "open_source": "sources",
    "probe": "probing",
    "probe_attention": "scanning",
    "scan": "scanning",
    "tasks": "tasks",
    "transforms": "transforms",
}
"""Public names and the rooms that they come from: imported on first use, with what they need."""


def __getattr__(name: str) -> Any:
    """``scan``, ``measure`` and the like on first use: what they need is not imported before."""
    if name in _LAZY:
        room = import_module(f"fastaniso.{_LAZY[name]}")
        return room if name == _LAZY[name] else getattr(room, name)
    raise AttributeError(f"module 'fastaniso' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return __all__
