"""The state of a visit to all pairs: what is taken from each cosine, summed over tiles of the pair grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from fastaniso.state.base import NO_ROW, State, filled
from fastaniso.state.coverage import PairCoverage
from fastaniso.state.errors import StateMismatchError


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


@dataclass(frozen=True, eq=False)
class Pairs(State):
    """Sums over cosines c of pairs of rows: unordered pairs i < j of one set, or all pairs of a row of each of two.

    ``counts``        int64 (5,): pairs counted; pairs left out for a masked row, and for a row that cannot be
    normalised; index of the first such row among the rows and among the others (``NO_ROW`` if none).
    ``histogram``     int64 (B,) over [−1, 1] in B equal bins, the last closed, or None.
    ``moments``       float64 (5,): Σc, then central Σ(c − c̄)², Σ(c − c̄)³, Σ(c − c̄)⁴, and Σ|c|, or None.
    ``exponentials``  float64 (T,): Σ exp(2t(c − 1)) for each t of ``uniformity_t``.
    ``above``         int64 (K,): pairs with c > threshold for each of ``thresholds``.
    ``extrema``       float64 (2,): least and largest c (+inf, −inf of no pair), or None.
    ``extrema_at``    int64 (2, 2): their (i, j), the first in order of (i, j) among equals (−1 of no pair), or None.

    The higher moments are central because those of a narrow distribution far from 0 would lose their digits.
    """

    coverage: PairCoverage
    uniformity_t: tuple[float, ...]
    thresholds: tuple[float, ...]
    counts: Tensor
    histogram: Tensor | None
    moments: Tensor | None
    exponentials: Tensor
    above: Tensor
    extrema: Tensor | None
    extrema_at: Tensor | None

    _tensors = ("counts", "histogram", "moments", "exponentials", "above", "extrema", "extrema_at")
    _settings: ClassVar[Mapping[str, Callable[[Any], Any]]] = {"uniformity_t": _floats, "thresholds": _floats}
    _must_agree = ("uniformity_t", "thresholds")
    _coverage = PairCoverage

    def _shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...], bool]]:
        bins = self.histogram.numel() if isinstance(self.histogram, Tensor) else 0
        return {
            "counts": (torch.int64, (5,), False),
            "histogram": (torch.int64, (bins,), True),
            "moments": (torch.float64, (5,), True),
            "exponentials": (torch.float64, (len(self.uniformity_t),), False),
            "above": (torch.int64, (len(self.thresholds),), False),
            "extrema": (torch.float64, (2,), self.extrema_at is None),
            "extrema_at": (torch.int64, (2, 2), self.extrema is None),
        }

    @classmethod
    def empty(
        cls,
        dim: int,
        device: torch.device | str = "cpu",
        *,
        bins: int = 0,
        moments: bool = True,
        extrema: bool = True,
        uniformity_t: tuple[float, ...] = (),
        thresholds: tuple[float, ...] = (),
    ) -> Self:
        """The state of no pair, with what is asked for: the identity of ``merge``."""
        inf = float("inf")

        def zeros(size: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        return cls(
            dim=dim,
            coverage=PairCoverage(),
            provenance=frozenset(),
            uniformity_t=uniformity_t,
            thresholds=thresholds,
            counts=filled((0, 0, 0, NO_ROW, NO_ROW), torch.int64, device),
            histogram=zeros(bins, torch.int64) if bins else None,
            moments=zeros(5, torch.float64) if moments else None,
            exponentials=zeros(len(uniformity_t), torch.float64),
            above=zeros(len(thresholds), torch.int64),
            extrema=filled((inf, -inf), torch.float64, device) if extrema else None,
            extrema_at=torch.full((2, 2), -1, dtype=torch.int64, device=device) if extrema else None,
        )

    @property
    def pairs(self) -> Tensor:
        """Pairs counted, a scalar on the device."""
        return self.counts[0]

    @property
    def bins(self) -> int:
        """Bins of the histogram; 0 without one."""
        return 0 if self.histogram is None else self.histogram.numel()

    def merge(self, other: Self) -> Self:
        """The state of both sets of pairs; refuses other contents and pairs that both have seen."""
        self._check_mergeable(other)
        ours, theirs = (s._contents() for s in (self, other))
        if ours != theirs:
            raise StateMismatchError(f"one Pairs holds {ours}, the other {theirs}")
        extrema, extrema_at = _merge_extrema(self, other)
        return replace(
            self,
            **self._joined(other),
            counts=torch.cat((self.counts[:3] + other.counts[:3], torch.minimum(self.counts[3:], other.counts[3:]))),
            histogram=_sum(self.histogram, other.histogram),
            moments=_merge_moments(self, other),
            exponentials=self.exponentials + other.exponentials,
            above=self.above + other.above,
            extrema=extrema,
            extrema_at=extrema_at,
        )

    def _contents(self) -> str:
        held = [f"{self.bins} bins"] if self.bins else []
        held += [name for name in ("moments", "extrema") if getattr(self, name) is not None]
        return ", ".join(held) or "counts only"


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a + b


def _merge_moments(a: Pairs, b: Pairs) -> Tensor | None:
    """Pébay (2008): central sums of two sets about the mean of both."""
    if a.moments is None or b.moments is None:
        return None
    n_a, n_b = a.pairs.double(), b.pairs.double()
    n = (n_a + n_b).clamp(min=1)
    sum_a, second_a, third_a, fourth_a, absolute_a = a.moments.unbind()
    sum_b, second_b, third_b, fourth_b, absolute_b = b.moments.unbind()
    delta = torch.where(n_a * n_b > 0, sum_b / n_b.clamp(min=1) - sum_a / n_a.clamp(min=1), 0)
    share_a, share_b = n_a / n, n_b / n
    second = second_a + second_b + delta**2 * n_a * share_b
    third = (
        third_a
        + third_b
        + delta**3 * n_a * share_b * (share_a - share_b)
        + 3 * delta * (share_a * second_b - share_b * second_a)
    )
    fourth = (
        fourth_a
        + fourth_b
        + delta**4 * n_a * share_b * (share_a**2 - share_a * share_b + share_b**2)
        + 6 * delta**2 * (share_a**2 * second_b + share_b**2 * second_a)
        + 4 * delta * (share_a * third_b - share_b * third_a)
    )
    return torch.stack((sum_a + sum_b, second, third, fourth, absolute_a + absolute_b))


def _merge_extrema(a: Pairs, b: Pairs) -> tuple[Tensor | None, Tensor | None]:
    """The smaller minimum and the larger maximum, and of equals the one that comes first in order of (i, j)."""
    if a.extrema is None or b.extrema is None or a.extrema_at is None or b.extrema_at is None:
        return None, None
    i_a, j_a = a.extrema_at.unbind(1)
    i_b, j_b = b.extrema_at.unbind(1)
    b_is_first = (i_b < i_a) | ((i_b == i_a) & (j_b < j_a))
    sign = filled((1.0, -1.0), a.extrema.dtype, a.extrema.device)  # so that less is better for both
    b_wins = (b.extrema * sign < a.extrema * sign) | ((b.extrema == a.extrema) & b_is_first)
    return torch.where(b_wins, b.extrema, a.extrema), torch.where(b_wins[:, None], b.extrema_at, a.extrema_at)
