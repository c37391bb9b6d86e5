"""Scatter within classes and between them, and what is said of both (LiDAR)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastaniso.statistics.cosine import ratio
from fastaniso.statistics.second_pass import kept_rows, wide_rows
from fastaniso.statistics.spectrum import rankme


@dataclass(frozen=True)
class Classes:
    """Some classes in order of their ``labels`` (g,): rows of each, ``counts`` (g,), and ``means`` (g, d), float64."""

    labels: Tensor
    counts: Tensor
    means: Tensor

    def pooled(self) -> tuple[Classes, Tensor]:
        """All of them as one class, and Σ n_g (μ_g − μ)(μ_g − μ)ᵀ about its mean μ, (d, d)."""
        count = self.counts.sum()
        mean = self.counts @ self.means / count
        weighted = (self.means - mean) * self.counts.sqrt()[:, None]
        return Classes(self.labels[:1], count[None], mean[None]), weighted.mT @ weighted

    def part(self, chosen: slice) -> Classes:
        """Some of the classes."""
        return Classes(self.labels[chosen], self.counts[chosen], self.means[chosen])


def classes_of(values: Tensor, mask: Tensor | None, labels: Tensor) -> tuple[Classes, Tensor] | None:
    """The classes of a block (outer, inner, d), labels in order (rows,), and their own scatter Σ(x − μ_g)(x − μ_g)ᵀ.

    From differences to the classes' means in float64: classes that are tight and far apart keep their digits. None
    where no row counts.
    """
    kept = kept_rows(values, mask)
    present, places, counts = torch.unique_consecutive(labels[kept], return_inverse=True, return_counts=True)
    if not len(present):
        return None
    rows = wide_rows(values)[kept]
    sums = torch.segment_reduce(rows, "sum", lengths=counts, axis=0)
    means = sums / counts[:, None]
    rows -= means[places]
    return Classes(present, counts.double(), means), rows.mT @ rows


def together(before: Classes, after: Classes) -> Classes:
    """The classes of both, in their order."""
    pairs = (before.labels, after.labels), (before.counts, after.counts), (before.means, after.means)
    return Classes(*map(torch.cat, pairs))


class Scatters:
    """Σ_g n_g (μ_g − x̄)(μ_g − x̄)ᵀ, ``between``, and Σ (x − μ_g)(x − μ_g)ᵀ, ``within``, of classes that come in order.

    Block by block: the last class of a block may go on in the next. About means of their own, merged by Chan's formula:
    no large mean costs digits.
    """

    def __init__(self, dim: int, device: torch.device) -> None:
        """Of no row."""
        self.within = torch.zeros(dim, dim, dtype=torch.float64, device=device)
        self.between = torch.zeros_like(self.within)
        self.classes = 0
        self._all: Classes | None = None
        self._waiting: Classes | None = None

    def add(self, found: Classes, within: Tensor) -> None:
        """The classes of the next block, and the scatter within them."""
        self.within += within
        if self._waiting is not None and self._waiting.labels[0] == found.labels[0]:
            whole, grown = together(self._waiting, found.part(slice(0, 1))).pooled()
            self.within += grown
            found = together(whole, found.part(slice(1, None)))
        elif self._waiting is not None:
            found = together(self._waiting, found)
        self._waiting = found.part(slice(-1, None))
        self._finish(found.part(slice(0, -1)))

    def end(self) -> None:
        """No block is left."""
        if self._waiting is not None:
            self._finish(self._waiting)

    def _finish(self, classes: Classes) -> None:
        if not len(classes.labels):
            return
        pooled, scatter = classes.pooled()
        self.between += scatter
        if self._all is not None:
            pooled, scatter = together(self._all, pooled).pooled()
            self.between += scatter
        self._all = pooled
        self.classes += len(classes.labels)


def lidar(within: Tensor, between: Tensor, n: int, delta: float, epsilon: float) -> Tensor:
    """exp H(p), p = λ/Σλ + ε, λ the eigenvalues of Σ_w^−½ Σ_b Σ_w^−½, Σ_w = within/n + δI, Σ_b = between/n."""
    identity = torch.eye(len(within), dtype=within.dtype, device=within.device)
    lower = torch.linalg.cholesky(within / n + delta * identity)
    # L⁻¹ Σ_b L⁻ᵀ has the eigenvalues of Σ_w^−½ Σ_b Σ_w^−½.
    half = torch.linalg.solve_triangular(lower, between / n, upper=False)
    whitened = torch.linalg.solve_triangular(lower, half.mT, upper=False)
    eigenvalues = torch.linalg.eigvalsh((whitened + whitened.mT) / 2).clamp(min=0).flip(0)
    return rankme(ratio(eigenvalues, eigenvalues.sum()), within.new_tensor(n), epsilon)
