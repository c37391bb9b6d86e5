"""Rows to time on, and what float64 makes of them a block at a time."""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = ("isotropic", "drifted")
"""Directions all alike, or around a mean: a mean cosine near 0, and near one half."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
_BLOCK = 1 << 14


def make(n: int, d: int, dtype: str, kind: str = "drifted", *, seed: int = 0) -> Tensor:
    """(n, d) rows, the same for the same arguments.

    Normals are drawn for one block of rows; the others are that block with its dimensions rotated and each row
    scaled anew, because drawing 768 million normals would take longer than all that is timed.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(min(n, _BLOCK), d, generator=generator)
    offset = torch.randn(d, generator=generator) if kind == "drifted" else None
    rows = torch.empty(n, d, dtype=DTYPES[dtype])
    for start in range(0, n, _BLOCK):
        block = base[: n - start]
        scale = 0.5 + torch.rand(len(block), 1, generator=generator)
        block = block.roll(start // _BLOCK, dims=1)
        rows[start : start + len(block)] = (block if offset is None else block.add_(offset)).mul_(scale)
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


def _unit(block: Tensor) -> Tensor:
    block = block.double()
    return block / torch.linalg.vector_norm(block, dim=1, keepdim=True)
