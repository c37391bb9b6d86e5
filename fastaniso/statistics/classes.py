"""Rows about the means of their classes: scatter within and between (LiDAR), what means leave over (rank collapse)."""

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


def about_means(values: Tensor, mask: Tensor | None, labels: Tensor) -> tuple[Classes, Tensor] | None:
    """The classes of a block (outer, inner, d), labels in order (rows,); of each row that counts x − μ_g, (m, d).

    Differences to the classes' means in float64: classes that are tight and far apart keep their digits. None where no
    row counts.
    """
    kept = kept_rows(values, mask)
    present, places, counts = torch.unique_consecutive(labels[kept], return_inverse=True, return_counts=True)
    if not len(present):
        return None
    rows = wide_rows(values)[kept]
    means = torch.segment_reduce(rows, "sum", lengths=counts, axis=0) / counts[:, None]
    rows -= means[places]
    return Classes(present, counts.double(), means), rows


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


class Residuals:
    """√(Σ‖x − μ_g‖²/Σ‖x‖²) of classes that come in order, block by block, merged by Chan's formula.

    ``add`` and ``end`` give the labels, counts and residuals (g,) of the classes that no later block goes on with.
    """

    def __init__(self) -> None:
        """Of no row."""
        self._waiting: tuple[Classes, Tensor] | None = None

    def add(self, classes: Classes, centred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What ``about_means`` told of the next block."""
        own = torch.segment_reduce(centred.square().sum(1), "sum", lengths=classes.counts.long(), axis=0)
        if self._waiting is not None:
            before, its_own = self._waiting
            if before.labels[0] == classes.labels[0]:
                whole, grown = together(before, classes.part(slice(0, 1))).pooled()
                own[0] += its_own[0] + grown.trace()
                classes = together(whole, classes.part(slice(1, None)))
            else:
                classes, own = together(before, classes), torch.cat((its_own, own))
        self._waiting = classes.part(slice(-1, None)), own[-1:]
        return _residuals(classes.part(slice(0, -1)), own[:-1])

    def end(self) -> tuple[Tensor, Tensor, Tensor]:
        """The last class; there is one."""
        assert self._waiting is not None
        return _residuals(*self._waiting)


def _residuals(classes: Classes, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    total = own + classes.counts * torch.linalg.vecdot(classes.means, classes.means)
    return classes.labels, classes.counts, ratio(own, total).sqrt()


def lidar(within: Tensor, between: Tensor, n: int, delta: float, epsilon: float) -> Tensor:
    """exp H(p), p = λ/Σλ + ε, λ the eigenvalues of Σ_w^−½ Σ_b Σ_w^−½, Σ_w = within/n + δI, Σ_b = between/n."""
    identity = torch.eye(len(within), dtype=within.dtype, device=within.device)
    lower = torch.linalg.cholesky(within / n + delta * identity)
    # L⁻¹ Σ_b L⁻ᵀ has the eigenvalues of Σ_w^−½ Σ_b Σ_w^−½.
    half = torch.linalg.solve_triangular(lower, between / n, upper=False)
    whitened = torch.linalg.solve_triangular(lower, half.mT, upper=False)
    eigenvalues = torch.linalg.eigvalsh((whitened + whitened.mT) / 2).clamp(min=0).flip(0)
    return rankme(ratio(eigenvalues, eigenvalues.sum()), within.new_tensor(n), epsilon)
