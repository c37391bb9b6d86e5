"""Scores of the spectrum of rows: how many directions they take up, and how evenly."""

from fastaniso.functional.spectral.ranks import (
    effective_rank,
    isoscore,
    isoscore_star,
    nesum,
    participation_ratio,
    rankme,
    stable_rank,
)
from fastaniso.functional.spectral.shape import (
    alpha_req,
    condition_number,
    mev,
    self_clustering,
    spectral_entropy,
    top_eigenvalue_share,
    variance_explained,
)

__all__ = [
    "alpha_req",
    "condition_number",
    "effective_rank",
    "isoscore",
    "isoscore_star",
    "mev",
    "nesum",
    "participation_ratio",
    "rankme",
    "self_clustering",
    "spectral_entropy",
    "stable_rank",
    "top_eigenvalue_share",
    "variance_explained",
]
