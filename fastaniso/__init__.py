"""Exact streaming cosine and isotropy statistics over millions of Transformer hidden states."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastaniso._version import __version__

import_module("fastaniso.ops.library")  # torch.ops.fastaniso.* are there once fastaniso is

if TYPE_CHECKING:
    from fastaniso._public import *

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
    "RankCollapse",
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
    "paper",
    "participation_ratio",
    "partition_isotropy",
    "plan",
    "probe",
    "probe_attention",
    "rank_collapse",
    "rankme",
    "report",
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
    "paper": "paper",
    "probe": "probing",
    "probe_attention": "scanning",
    "report": "report",
    "scan": "scanning",
    "tasks": "tasks",
    "transforms": "transforms",
}
"""Names whose rooms need more than torch, or are rooms themselves; all others are in ``_public``."""


def __getattr__(name: str) -> Any:
    """Public names on first use: what they need is not imported before."""
    if name not in __all__:
        raise AttributeError(f"module 'fastaniso' has no attribute {name!r}")
    room = import_module(f"fastaniso.{_LAZY.get(name, '_public')}")
    value = room if _LAZY.get(name) == name else getattr(room, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return __all__
