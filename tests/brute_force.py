"""Every statistic the slow way: float64, all pairs formed, the formula as it is written in the docs."""

from __future__ import annotations

import torch
from torch import Tensor


def units(x: Tensor) -> Tensor:
    x = x.double()
    # Scaled first: squares of 1e±200 neither overflow nor vanish.
    x = x / x.abs().amax(1, keepdim=True)
    return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)


def cosines(x: Tensor) -> Tensor:
    """Over the ordered pairs i ≠ j, from distances: 1 − ‖u − v‖²/2 keeps the digits of a collapsed cloud."""
    u = units(x)
    distances = (u[:, None] - u[None]).square().sum(2)
    return 1 - distances[~torch.eye(len(u), dtype=torch.bool)] / 2


def one_minus_cosines(x: Tensor) -> Tensor:
    u = units(x)
    distances = (u[:, None] - u[None]).square().sum(2)
    return distances[~torch.eye(len(u), dtype=torch.bool)] / 2


def cosine_std(x: Tensor) -> float:
    return one_minus_cosines(x).std(correction=0).item()


def contributions(x: Tensor) -> Tensor:
    u = units(x)
    products = u[:, None] * u[None]
    return products[~torch.eye(len(u), dtype=torch.bool)].mean(0)


def within_between(x: Tensor, groups: Tensor) -> tuple[float, float]:
    """Pooled over the ordered pairs of rows i ≠ j of one group, and of two different groups."""
    u = units(x)
    table = u @ u.T
    same = groups[:, None] == groups[None]
    other_row = ~torch.eye(len(u), dtype=torch.bool)
    return table[same & other_row].mean().item(), table[~same].mean().item()


def covariance(x: Tensor) -> Tensor:
    centred = x.double() - x.double().mean(0)
    return centred.T @ centred / len(x)


def participation_ratio(x: Tensor) -> float:
    eigenvalues = torch.linalg.eigvalsh(covariance(x))
    return (eigenvalues.sum().square() / eigenvalues.square().sum()).item()


def isoscore(x: Tensor) -> float:
    """Rudman et al. (2022) step by step: variances normalised, isotropy defect, dimensions used, rescaled."""
    d = x.shape[1]
    variances = torch.linalg.eigvalsh(covariance(x))
    normalised = variances * d**0.5 / torch.linalg.vector_norm(variances)
    defect = torch.linalg.vector_norm(normalised - 1) / (2 * (d - d**0.5)) ** 0.5
    fraction = (d - defect**2 * (d - d**0.5)) ** 2 / d**2
    return ((d * fraction - 1) / (d - 1)).item()


def effective_rank(x: Tensor, *, center: bool) -> float:
    x = x.double() - (x.double().mean(0) if center else 0)
    singular = torch.linalg.svdvals(x)
    shares = singular / singular.sum()
    return torch.special.entr(shares).sum().exp().item()


def eigenvalues(x: Tensor, *, center: bool = True, standardize: bool = False, unit: bool = False) -> Tensor:
    """Squares of the singular values of the rows so treated, over n, largest first: min(n, d) of them."""
    rows = units(x) if unit else x.double()
    rows = rows - rows.mean(0) if center else rows
    if standardize:
        rows = rows / rows.std(0, correction=0)
    return torch.linalg.svdvals(rows).square() / len(rows)


def entropy(shares: Tensor) -> float:
    return torch.special.entr(shares).sum().item()


def padded(values: Tensor, dim: int) -> Tensor:
    """The d eigenvalues where there are fewer rows than dimensions."""
    return torch.cat((values, values.new_zeros(max(dim - len(values), 0))))
