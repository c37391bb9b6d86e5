"""The state of attention: what is taken from the scores and the softmax of each query, summed by head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from fastaniso.state.base import State, filled
from fastaniso.state.coverage import Coverage


def _range(values: Any) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)


@dataclass(frozen=True, eq=False)
class Attention(State):
    """Sums over the rows of H heads' attention: a row is one query's softmax of scores s = scale·q·k over its keys.

    ``counts``     int64 (H, 8): rows measured; rows left out as masked, as seeing no key, for a score that is NaN or
    infinite; rows measured that see one key; scores of the rows measured, and those of them below and above the range.
    ``histogram``  int64 (H, B): scores in B equal bins over ``score_range``, the last closed; no bins, no range.
    ``scores``     float64 (H, 4): Σs, central Σ(s − s̄)², least and largest (+inf, −inf of no score).
    ``rows``       float64 (H, 5): over rows Σ entropy, Σ entropy / log(keys) (0 for one key), and Σ of the largest, the
    median (the mean of both in the middle) and the least of the softmax over the row's keys.
    ``received``   float64 (H, P): Σ over rows of the attention to each of the first P keys of their sequence that the
    key mask keeps.
    ``visible``    int64 (H, P): how many rows see it.

    ``dim`` is that of a query. Coverage is of queries (sequence by sequence, masked ones included), the same of all
    heads.
    """

    coverage: Coverage
    scale: float
    causal: bool
    window: int | None
    score_range: tuple[float, float]
    counts: Tensor
    histogram: Tensor
    scores: Tensor
    rows: Tensor
    received: Tensor
    visible: Tensor

    _tensors = ("counts", "histogram", "scores", "rows", "received", "visible")
    _settings: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "scale": float,
        "causal": bool,
        "window": lambda window: None if window is None else int(window),
        "score_range": _range,
    }
    _must_agree = ("scale", "causal", "window", "score_range", "heads", "bins", "positions")

    @property
    def heads(self) -> int:
        """Number of heads H."""
        return self.counts.shape[0]

    @property
    def bins(self) -> int:
        """Bins of the histogram; 0 without one."""
        return self.histogram.shape[1]

    @property
    def positions(self) -> int:
        """Number of first keys P whose attention is summed."""
        return self.received.shape[1]

    def _shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...], bool]]:
        def size(tensor: Any, axis: int) -> int:
            return tensor.shape[axis] if isinstance(tensor, Tensor) and tensor.dim() == 2 else -1

        heads, positions = size(self.counts, 0), size(self.received, 1)
        return {
            "counts": (torch.int64, (heads, 8), False),
            "histogram": (torch.int64, (heads, size(self.histogram, 1)), False),
            "scores": (torch.float64, (heads, 4), False),
            "rows": (torch.float64, (heads, 5), False),
            "received": (torch.float64, (heads, positions), False),
            "visible": (torch.int64, (heads, positions), False),
        }

    @classmethod
    def empty(
        cls,
        dim: int,
        heads: int,
        device: torch.device | str = "cpu",
        *,
        scale: float | None = None,
        causal: bool = False,
        window: int | None = None,
        bins: int = 512,
        score_range: tuple[float, float] = (-32.0, 32.0),
        positions: int = 64,
    ) -> Self:
        """The state of no row: the identity of ``merge``. ``scale`` is 1/√dim by default."""

        def zeros(size: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(heads, size, dtype=dtype, device=device)

        inf = float("inf")
        return cls(
            dim=dim,
            coverage=Coverage(),
            provenance=frozenset(),
            scale=dim**-0.5 if scale is None else scale,
            causal=causal,
            window=window,
            score_range=_range(score_range),
            counts=zeros(8, torch.int64),
            histogram=zeros(bins, torch.int64),
            scores=filled((0.0, 0.0, inf, -inf), torch.float64, device).repeat(heads, 1),
            rows=zeros(5, torch.float64),
            received=zeros(positions, torch.float64),
            visible=zeros(positions, torch.int64),
        )

    def merge(self, other: Self) -> Self:
        """The state of both sets of queries; refuses other heads or settings, and queries that both have seen."""
        self._check_mergeable(other)
        return replace(
            self,
            **self._joined(other),
            counts=self.counts + other.counts,
            histogram=self.histogram + other.histogram,
            scores=_merge_scores(self, other),
            rows=self.rows + other.rows,
            received=self.received + other.received,
            visible=self.visible + other.visible,
        )


def _merge_scores(a: Attention, b: Attention) -> Tensor:
    """Chan, Golub & LeVeque (1979): central sums of two sets about the mean of both."""
    n_a, n_b = a.counts[:, 5].double(), b.counts[:, 5].double()
    sum_a, second_a, least_a, largest_a = a.scores.unbind(1)
    sum_b, second_b, least_b, largest_b = b.scores.unbind(1)
    delta = torch.where(n_a * n_b > 0, sum_b / n_b.clamp(min=1) - sum_a / n_a.clamp(min=1), 0)
    second = second_a + second_b + delta**2 * n_a * (n_b / (n_a + n_b).clamp(min=1))
    return torch.stack((sum_a + sum_b, second, torch.minimum(least_a, least_b), torch.maximum(largest_a, largest_b)), 1)
