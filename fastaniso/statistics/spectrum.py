"""Scores of a spectrum: how many directions rows take up, and how evenly.

λ are the eigenvalues, largest first, of the covariance C or, uncentred, of XᵀX/n; σ = √λ are the singular values. Every
score is free of scale, so scatters serve for covariances.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastaniso.state import Gram
from fastaniso.statistics import cosine
from fastaniso.statistics.cosine import ratio


class Spectra:
    """The scatter matrices of a ``Gram`` and their eigenvalues, each decomposed once."""

    def __init__(self, gram: Gram) -> None:
        """Nothing is computed before it is asked for."""
        self.gram = gram
        self._eigenvalues: dict[tuple[bool, bool, bool], Tensor] = {}

    def eigenvalues(self, *, center: bool, standardize: bool = False, unit: bool = False) -> Tensor:
        """``eigenvalues`` of ``matrix``."""
        form = (center, standardize, unit)
        if form not in self._eigenvalues:
            self._eigenvalues[form] = eigenvalues(matrix(self.gram, *form))
        return self._eigenvalues[form]


def matrix(gram: Gram, center: bool, standardize: bool = False, unit: bool = False) -> Tensor:
    """Σ(x − x̄)(x − x̄)ᵀ; uncentred Σxxᵀ; standardised the correlations of x; of u = x/‖x‖ with ``unit``: (d, d).

    A dimension that does not vary has no correlation: its row and column are zero.
    """
    scatter = _scatter(gram, "unit_scatter" if unit else "scatter")
    if not center:
        if standardize:
            raise ValueError("standardize: needs center=True: deviations are divided by their std, rows are not")
        n, total = gram.counts[0].double().clamp(min=1), gram.sums[2 if unit else 0]
        return torch.addr(scatter, total / n, total)
    if standardize:
        deviations = scatter.diagonal().clamp(min=0).sqrt()
        scales = torch.where(deviations > 0, 1 / deviations, 0)
        return scatter * scales[:, None] * scales
    return scatter


def eigenvalues(matrix: Tensor) -> Tensor:
    """Eigenvalues (d,) of a matrix that has none below 0, largest first; what rounding may have made is 0.

    That is up to d·2.2e-16 of the largest, what the solver leaves, and up to twice the most negative one: how far below
    0 they come tells what rounding of the products (float32 of float32 rows) did to all of them.
    """
    values: Tensor = torch.linalg.eigvalsh(matrix).flip(0)
    floor = torch.maximum(values[0] * (len(values) * torch.finfo(torch.float64).eps), -2 * values[-1])
    return torch.where(values > floor, values, 0)


def participation_ratio(matrix: Tensor, degrees: Tensor | None = None) -> Tensor:
    """tr(C)²/‖C‖_F², from 1 (one direction) to d (isotropic); nan when the rows do not vary.

    With ``degrees`` of freedom ν (n − 1 of centred rows) corrected for finite n: tr(C²) is replaced by its unbiased
    estimate for normal rows, ν²/((ν − 1)(ν + 2))·(tr(C²) − tr(C)²/ν) (Srivastava 2005); at most d.
    """
    trace = matrix.trace()
    # Divided by the trace before squaring: the square of a covariance of 1e±200 would leave float64.
    shares = (matrix / trace).flatten()
    inverse = shares.dot(shares)
    if degrees is not None:
        unbiased = (inverse - 1 / degrees) * degrees.square() / ((degrees - 1) * (degrees + 2))
        inverse = torch.where(degrees > 1, unbiased.clamp(min=1 / len(matrix)), torch.nan)
    return torch.where(trace > 0, 1 / inverse, torch.nan)


def participation_ratio_of(
    gram: Gram, *, center: bool = True, standardize: bool = False, unit: bool = False, corrected: bool = False
) -> Tensor:
    """``participation_ratio`` of ``matrix``, if asked for corrected."""
    if corrected and not center:
        raise ValueError("corrected: needs center=True: the correction is one of covariances")
    degrees = gram.counts[0].double() - 1 if corrected else None
    return participation_ratio(matrix(gram, center, standardize, unit), degrees)


def isoscore(participation_ratio: Tensor, dim: int) -> Tensor:
    """IsoScore (Rudman et al. 2022) = (PR − 1)/(d − 1), from 0 to 1; nan when d = 1 or the rows do not vary."""
    return (participation_ratio - 1) / (dim - 1) if dim > 1 else participation_ratio * torch.nan


def isoscore_star(gram: Gram, *, zeta: float, target: Gram | Tensor | None = None, legacy: str | None = None) -> Tensor:
    """IsoScore of (1 − ζ)C + ζC₀ (Rudman & Eickhoff 2023); without a target C₀ = (tr C/d)·I.

    ``legacy="identity"``: C over n − 1 and C₀ = I, whatever the scale of the rows.
    """
    if not 0 <= zeta <= 1:
        raise ValueError(f"zeta: expected a number from 0 (no shrinkage) to 1, got {zeta!r}")
    n, identity = gram.counts[0].double(), torch.eye(gram.dim, dtype=torch.float64, device=gram.sums.device)
    _check_legacy(legacy, "identity")
    if legacy:
        if target is not None:
            raise ValueError("target: legacy='identity' takes the identity; leave out one of the two")
        covariance, shrink_to = ratio(raw_scatter(gram), n - 1), identity
    else:
        covariance = ratio(raw_scatter(gram), n)
        shrink_to = identity * covariance.diagonal().mean() if target is None else _covariance(target, gram)
    return isoscore(participation_ratio(torch.lerp(covariance, shrink_to, zeta)), gram.dim)


def effective_rank(eigenvalues: Tensor) -> Tensor:
    """exp H(σ/Σσ) (Roy & Vetterli 2007), from 1 to d; nan when all are zero."""
    singular = eigenvalues.sqrt()
    return _entropy(ratio(singular, singular.sum())).exp()


def rankme(shares: Tensor, n: Tensor, epsilon: float) -> Tensor:
    """exp H(p), p_k = s_k + ε over the min(n, d) that exist, s_k = σ_k/Σσ: Σp = 1 + ε·min(n, d)."""
    if not 0 <= epsilon < 1:
        raise ValueError(f"epsilon: expected a number from 0 to below 1, got {epsilon!r}")
    exist = torch.arange(len(shares), device=shares.device) < n.clamp(min=1)
    return _entropy(torch.where(exist, shares + epsilon, 0)).exp()


def rankme_of(
    spectra: Spectra,
    *,
    epsilon: float = 1e-7,
    center: bool = False,
    standardize: bool = False,
    unit: bool = False,
    legacy: str | None = None,
) -> Tensor:
    """``rankme`` of a state; legacy "centered": σ of centred rows; "eigenvalues": σ² of centred rows."""
    _check_legacy(legacy, "centered", "eigenvalues")
    eigenvalues = spectra.eigenvalues(center=center or legacy is not None, standardize=standardize, unit=unit)
    sizes = eigenvalues if legacy == "eigenvalues" else eigenvalues.sqrt()
    return rankme(ratio(sizes, sizes.sum()), spectra.gram.counts[0], epsilon)


def top_share(eigenvalues: Tensor) -> Tensor:
    """λ₁/Σλ, from 1/d to 1; nan when all are zero. Its inverse is Σλ/λ₁, the stable rank."""
    return ratio(eigenvalues, eigenvalues.sum())[0]


def variance_explained(eigenvalues: Tensor, k: int) -> Tensor:
    """(λ₁ + … + λ_k)/Σλ, from k/d to 1; nan when all are zero."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k: expected an int of at least 1, got {k!r}")
    return ratio(eigenvalues[:k].sum(), eigenvalues.sum())


def spectral_entropy(eigenvalues: Tensor) -> Tensor:
    """H(λ/Σλ)/log d, from 0 (one direction) to 1 (isotropic); nan when d = 1 or all are zero."""
    entropy = _entropy(ratio(eigenvalues, eigenvalues.sum()))
    return entropy / (math.log(len(eigenvalues)) or math.nan)


def condition_number(eigenvalues: Tensor) -> Tensor:
    """λ₁/λ_d, from 1 to inf (some direction is not taken up); nan when all are zero."""
    return eigenvalues[0] / eigenvalues[-1]


def alpha_req(eigenvalues: Tensor, ranks: tuple[int, int], *, legacy: str | None = None) -> Tensor:
    """α of the least-squares line log λ_k = c − α·log k over the ranks k (both included); nan of fewer than two.

    Ranks above d, and those with λ_k = 0, are left out. ``legacy="weighted"``: each rank counts 1/k.
    """
    _check_legacy(legacy, "weighted")
    first, last = ranks
    if isinstance(first, bool) or not isinstance(first, int) or not isinstance(last, int) or not 1 <= first < last:
        raise ValueError(f"ranks: expected two ints, 1 <= first < last, got {ranks!r}")
    levels = eigenvalues[first - 1 : last]
    k = torch.arange(first, first + len(levels), dtype=torch.float64, device=levels.device)
    weights = (levels > 0).double() / (k if legacy else 1)
    # Logarithms of zeros are left out by their weight of 0, which would not stand beside an inf.
    x, y = k.log(), torch.where(levels > 0, levels, 1).log()
    total = weights.sum()
    x, y = x - ratio(weights.dot(x), total), y - ratio(weights.dot(y), total)
    slope = ratio(weights.dot(x * y), weights.dot(x * x))
    return torch.where((levels > 0).sum() > 1, -slope, torch.nan)


def self_clustering(gram: Gram) -> Tensor:
    """(E[c²] − 1/d)/(1 − 1/d) over the pairs i ≠ j, from 0 (isotropic) to 1 (one axis); nan when d = 1 or n < 2.

    With Q = ‖C_u‖_F² it is (Q − n − n(n−1)/d)/(n² − n − n(n−1)/d) (Tsitsulin et al. 2023), for Q − n is Σc² over the
    pairs. It comes from mean and std of the cosine, which keep the digits that Q − n loses.
    """
    expected = 1 / gram.dim
    mean_square = cosine.std(gram).square() + cosine.mean(gram).square()
    return ratio(mean_square - expected, mean_square.new_tensor(1 - expected))


def mev_of(
    spectra: Spectra,
    *,
    center: bool = False,
    standardize: bool = False,
    unit: bool = False,
    legacy: str | None = None,
) -> Tensor:
    """``top_share`` of the rows as they are; legacy "centered": of centred rows."""
    _check_legacy(legacy, "centered")
    return top_share(spectra.eigenvalues(center=center or legacy is not None, standardize=standardize, unit=unit))


def raw_scatter(gram: Gram) -> Tensor:
    """The central scatter of x; an error if the Gram was made without it."""
    return _scatter(gram, "scatter")


def _scatter(gram: Gram, name: str) -> Tensor:
    scatter: Tensor | None = getattr(gram, name)
    if scatter is None:
        which, option = ("unit rows", "unit") if name == "unit_scatter" else ("rows", "raw")
        raise ValueError(f"a spectral score needs the scatter of the {which}: make the Gram with {option}=True")
    return scatter


def _covariance(target: Gram | Tensor, gram: Gram) -> Tensor:
    if isinstance(target, Gram):
        target = ratio(raw_scatter(target), target.counts[0])
    if not isinstance(target, Tensor) or target.shape != (gram.dim, gram.dim):
        got = tuple(target.shape) if isinstance(target, Tensor) else type(target).__name__
        raise ValueError(f"target: expected a Gram or a covariance ({gram.dim}, {gram.dim}), got {got}")
    return target.to(gram.sums.device, torch.float64)


def _check_legacy(legacy: str | None, *names: str) -> None:
    if legacy is not None and legacy not in names:
        raise ValueError(f"legacy: expected None or {' or '.join(map(repr, names))}, got {legacy!r}")


def _entropy(shares: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(shares).sum()
    return entropy
