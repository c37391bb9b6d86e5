"""The state of one O(n d²) pass: moments and central scatters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from fastaniso.state.base import State
from fastaniso.state.coverage import Coverage
from fastaniso.state.errors import StateMismatchError
from fastaniso.state.moments import Moments


@dataclass(frozen=True, eq=False)
class Gram(State):
    """Moments and the central scatter of the rows and/or of the unit rows, one O(n d²) pass.

    ``scatter``       float64 (d, d): Σ(x − x̄)(x − x̄)ᵀ, or None when not asked for.
    ``unit_scatter``  float64 (d, d): Σ(u − ū)(u − ū)ᵀ, or None when not asked for.

    Central, because Σxxᵀ − n·x̄x̄ᵀ loses what a mean far from zero leaves; merging is Chan's formula, and
    Σuuᵀ = unit_scatter + n·ūūᵀ comes back without loss.
    """

    coverage: Coverage
    counts: Tensor
    totals: Tensor
    sums: Tensor
    scatter: Tensor | None
    unit_scatter: Tensor | None

    _tensors = ("counts", "totals", "sums", "scatter", "unit_scatter")

    def _shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...], bool]]:
        square = (torch.float64, (self.dim, self.dim), True)
        return {**self.moments._shapes(), "scatter": square, "unit_scatter": square}

    @classmethod
    def empty(cls, dim: int, device: torch.device | str = "cpu", *, raw: bool = True, unit: bool = True) -> Self:
        """The state of no rows, with the scatters asked for: the identity of ``merge``."""

        def square(wanted: bool) -> Tensor | None:
            return torch.zeros(dim, dim, dtype=torch.float64, device=device) if wanted else None

        return cls.of(Moments.empty(dim, device), square(raw), square(unit))

    @classmethod
    def of(cls, moments: Moments, scatter: Tensor | None, unit_scatter: Tensor | None) -> Self:
        """A Gram from its parts."""
        return cls(
            dim=moments.dim,
            coverage=moments.coverage,
            provenance=moments.provenance,
            counts=moments.counts,
            totals=moments.totals,
            sums=moments.sums,
            scatter=scatter,
            unit_scatter=unit_scatter,
        )

    @property
    def moments(self) -> Moments:
        """The linear part."""
        return Moments(self.dim, self.coverage, self.provenance, self.counts, self.totals, self.sums)

    def merge(self, other: Self) -> Self:
        """The state of both sets of rows; refuses another dimension, other contents, and rows that both have seen."""
        self._check_mergeable(other)
        ours, theirs = ([n for n in ("scatter", "unit_scatter") if getattr(s, n) is not None] for s in (self, other))
        if ours != theirs:
            raise StateMismatchError(f"one Gram holds {ours or 'no scatter'}, the other {theirs or 'no scatter'}")
        moments = self.moments.merge(other.moments)
        return type(self).of(
            moments,
            _merge_scatter(self.scatter, other.scatter, self.sums[0], other.sums[0], self.kept, other.kept),
            _merge_scatter(self.unit_scatter, other.unit_scatter, self.sums[2], other.sums[2], self.kept, other.kept),
        )

    @property
    def kept(self) -> Tensor:
        """Rows counted, a scalar on the device."""
        return self.counts[0]


def _merge_scatter(
    a: Tensor | None, b: Tensor | None, sum_a: Tensor, sum_b: Tensor, kept_a: Tensor, kept_b: Tensor
) -> Tensor | None:
    """Chan, Golub & LeVeque (1979): S = S_a + S_b + δδᵀ·n_a·n_b/n with δ the difference of the means."""
    if a is None or b is None:
        return None
    n_a, n_b = kept_a.clamp(min=1), kept_b.clamp(min=1)
    delta = sum_a / n_a - sum_b / n_b
    weight = kept_a.double() * kept_b / (kept_a + kept_b).clamp(min=1)
    return (a + b).addr_(delta * weight, delta)
