"""Rows to time on, and what float64 makes of them a block at a time."""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = ("isotropic", "drifted")
"""Directions all alike, or around a mean: a mean cosine near 0, and near one half."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
_BLOCK = 1 << 14
_PAIR_BLOCK = 1 << 10


def make(n: int, d: int, dtype: str, kind: str = "drifted", *, seed: int = 0) -> Tensor:
    """(n, d) rows, the same for the same arguments.

    Normals are drawn for one block of drifted rows; the others are that block with its dimensions rotated and each row
    scaled anew, because drawing 768 million normals takes longer than most that is timed. Isotropic rows are all drawn:
    nothing is left of their mean but rounding, which equal directions would repeat in every block.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.empty(n, d, dtype=DTYPES[dtype])
    base = torch.randn(min(n, _BLOCK), d, generator=generator)
    offset = torch.randn(d, generator=generator) if kind == "drifted" else None
    for start in range(0, n, _BLOCK):
        block = base[: n - start]
        scale = 0.5 + torch.rand(len(block), 1, generator=generator)
        if offset is None:
            block.normal_(generator=generator)
        else:
            block = block.roll(start // _BLOCK, dims=1).add_(offset)
        rows[start : start + len(block)] = block.mul_(scale)
    return rows


def exact_mean_cosine(rows: Tensor) -> float:
    """Mean cosine over the ordered pairs i ≠ j in float64."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for block in rows.split(_BLOCK):
        total += _unit(block).sum(0)
    n = len(rows)
    return float((total.dot(total) - n) / (n * (n - 1)))


def exact_second_moment(rows: Tensor, *, unit: bool) -> Tensor:
    """Σuuᵀ of the unit rows, or Σxxᵀ, (d, d) in float64."""
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for block in rows.split(_BLOCK):
        block = _unit(block) if unit else block.double()
        total.addmm_(block.T, block)
    return total


def exact_histogram(rows: Tensor, bins: int) -> Tensor:
    """int64 counts (bins,) over [−1, 1] of the cosines of the pairs i < j in float64; the last bin is closed."""
    counts = torch.zeros(bins, dtype=torch.int64)
    u = _unit(rows)
    for start in range(0, len(u), _PAIR_BLOCK):
        cosines = u[start : start + _PAIR_BLOCK] @ u[start:].T
        upper = torch.ones_like(cosines, dtype=torch.bool).triu_(1)
        places = cosines[upper].add_(1).mul_(bins / 2).long().clamp_(0, bins - 1)
        counts += torch.bincount(places, minlength=bins)
    return counts


def exact_nearest(rows: Tensor, k: int) -> Tensor:
    """The k largest cosines (n, k) of each row with the others, in float64, largest first."""
    u = _unit(rows)
    largest = []
    for start in range(0, len(u), _PAIR_BLOCK):
        cosines = u[start : start + _PAIR_BLOCK] @ u.T
        cosines.diagonal(start).fill_(-torch.inf)
        largest.append(cosines.topk(k).values)
    return torch.cat(largest)


def exact_two_nn(rows: Tensor, share: float = 0.9) -> float:
    """Slope through the origin of −log(1 − F) on log(r₂/r₁), of the ``share`` with the smallest ratios, in float64."""
    nearest, second = (2 - 2 * exact_nearest(rows, 2)).sqrt().unbind(1)
    used = int(share * len(rows))
    logs = (second / nearest).log().sort().values[:used, None]
    heights = -(1 - torch.arange(1, used + 1, dtype=torch.float64) / len(rows)).log()
    return float(torch.linalg.lstsq(logs, heights[:, None]).solution)


def _unit(block: Tensor) -> Tensor:
    block = block.double()
    return block / torch.linalg.vector_norm(block, dim=1, keepdim=True)
