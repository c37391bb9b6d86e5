"""Scores of the spectrum, from the scatter of the rows: S = Σ(x − x̄)(x − x̄)ᵀ = n·C, λ its eigenvalues.

Every score here is free of scale, so S serves for C. The few traces needed come before an eigendecomposition.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastaniso.state import Gram
from fastaniso.statistics.cosine import ratio


def participation_ratio(gram: Gram) -> Tensor:
    """tr(C)²/‖C‖_F² of the covariance, from 1 (one direction) to d (isotropic); nan when the rows do not vary."""
    scatter = raw_scatter(gram)
    trace = scatter.trace()
    # Divided by the trace before squaring: the square of a covariance of 1e±200 would leave float64.
    shares = (scatter / trace).flatten()
    return torch.where(trace > 0, 1 / shares.dot(shares), torch.nan)


def isoscore(gram: Gram) -> Tensor:
    """IsoScore (Rudman 2022) = (PR − 1)/(d − 1), from 0 to 1; nan when d = 1 or the rows do not vary."""
    return (participation_ratio(gram) - 1) / (gram.dim - 1) if gram.dim > 1 else gram.sums.new_tensor(torch.nan)


def eigenvalues(gram: Gram, *, center: bool) -> Tensor:
    """Eigenvalues of Σ(x − x̄)(x − x̄)ᵀ or, uncentred, of Σxxᵀ: (d,), largest first, rounding below zero cut off."""
    scatter = raw_scatter(gram)
    if not center:
        n = gram.counts[0].double().clamp(min=1)
        scatter = torch.addr(scatter, gram.sums[0] / n, gram.sums[0])
    ascending: Tensor = torch.linalg.eigvalsh(scatter)
    return ascending.flip(0).clamp(min=0)


def effective_rank(eigenvalues: Tensor) -> Tensor:
    """exp H(σ/Σσ) of the singular values σ = √λ (Roy & Vetterli 2007); nan when all are zero.

    λ below d·ε·λ₁ (ε of float64) is what the eigensolver cannot tell from zero and counts as zero: its root would be
    1e-8 of σ₁ and d of them show.
    """
    floor = eigenvalues[0] * (eigenvalues.shape[0] * torch.finfo(torch.float64).eps)
    singular = torch.where(eigenvalues > floor, eigenvalues, 0).sqrt()
    shares = ratio(singular, singular.sum())
    entropy: Tensor = torch.special.entr(shares).sum()
    return entropy.exp()


def raw_scatter(gram: Gram) -> Tensor:
    """The central scatter of x; an error if the Gram was made without it."""
    if gram.scatter is None:
        raise ValueError("a spectral score needs the scatter of the rows: make the Gram with raw=True")
    return gram.scatter
