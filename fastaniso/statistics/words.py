"""Similarity within words, sentences and sequences, from sums by group; how much of a word one vector explains."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from fastaniso.state import GroupMoments
from fastaniso.statistics.cosine import ratio
from fastaniso.statistics.second_pass import wide_rows


def check_min_count(min_count: int, *, least: int = 2) -> None:
    """Refuse what is no number of occurrences."""
    if isinstance(min_count, bool) or not isinstance(min_count, int) or min_count < least:
        raise ValueError(f"min_count: expected an int of at least {least}, got {min_count!r}")


def some_groups(groups: GroupMoments, chosen: slice | Tensor) -> GroupMoments:
    """The state of some of the groups, by a slice, their indices or a mask; of dropped rows it tells what it told."""
    return replace(
        groups,
        counts=groups.counts[chosen],
        unit_sum=groups.unit_sum[chosen],
        unit_squared=groups.unit_squared[chosen],
    )


def unit_means(groups: GroupMoments) -> Tensor:
    """ū of each group, (g, d)."""
    return groups.unit_sum / groups.counts[:, None]


def to_own_mean(groups: GroupMoments, raw_sum: Tensor) -> Tensor:
    """Mean cosine of the rows of a group to its mean row: (Σu)·m/(n‖m‖), m = Σx/n: (g,); nan where m is zero.

    Σx stands for m, and is divided by its largest entry, so that squares stay within float64.
    """
    total = raw_sum / raw_sum.abs().amax(1, keepdim=True)
    lengths = torch.linalg.vector_norm(total, dim=1)
    # Rounded unit rows whose lengths all err the same way make Σu too long or too short: √(n·Σ‖u‖²) for n.
    norms = (groups.counts * groups.unit_squared).sqrt()
    cosines: Tensor = torch.linalg.vecdot(groups.unit_sum, total) / (norms * lengths)
    return cosines


def instance_sums(groups: GroupMoments) -> tuple[Tensor, Tensor]:
    """Σū_g (d,) and Σ‖ū_g‖² (): what ``between_instances`` takes, summed over all groups."""
    means = unit_means(groups)
    return means.sum(0), means.flatten().dot(means.flatten())


def between_instances(mean_sum: Tensor, mean_squares: Tensor, groups: int) -> Tensor:
    """(‖Σū_g‖² − Σ‖ū_g‖²)/(G(G−1)): mean cosine of a row of one group and one of another, every group counting once.

    The expectation of the mean over one random instance a group; nan of fewer than two groups.
    """
    pairs = mean_sum.new_tensor(groups * (groups - 1))
    return ratio(mean_sum.dot(mean_sum) - mean_squares, pairs)


def mev_of_groups(rows: Tensor, there: Tensor) -> Tensor:
    """σ₁²/Σσ² of each of g groups of rows (g, most, d), of which some are ``there`` (g, most): (g,), float64.

    From the products of the rows of a group with each other, which have the squares of its singular values.
    """
    wide = rows.double().masked_fill_(~there[:, :, None], 0)
    # Divided by its largest entry, the share is the same, and squares stay within float64.
    wide /= wide.abs().amax((1, 2), keepdim=True)
    squares = torch.linalg.eigvalsh(wide @ wide.mT)
    shares: Tensor = squares[:, -1] / squares.sum(1)
    return shares


def second_moments(blocks: Iterable[Tensor], dim: int, device: torch.device) -> Tensor:
    """Eigenvalues of Σxxᵀ over rows in blocks (m, d), largest first: (d,), float64, of rows scaled by one number."""
    total, largest = torch.zeros(dim, dim, dtype=torch.float64, device=device), torch.zeros((), device=device).double()
    for block in blocks:
        wide = wide_rows(block[None])
        size = torch.maximum(largest, wide.abs().amax())
        wide /= size
        total = total * (largest / size).square() + wide.mT @ wide
        largest = size
    squares: Tensor = torch.linalg.eigvalsh(total)
    return squares.clamp(min=0).flip(0)
