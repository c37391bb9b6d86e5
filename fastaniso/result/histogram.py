"""The histogram of cosines, and the quantiles and shares that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A 95 % confidence interval over the draw of the sample; arrays where what it belongs to is one."""

    low: Any
    high: Any


class Quantile(NamedTuple):
    """``value`` lies within ``bound`` of the order statistic; floats, or arrays of the shape of q.

    ``interval`` is None where all pairs were visited. In a sample ``value`` is the sample's quantile, and the interval
    is that of the quantile of all pairs.
    """

    value: Any
    bound: Any
    interval: Interval | None


class Share(NamedTuple):
    """``value`` lies within ``bound`` of the share; ``interval`` as in ``Quantile``."""

    value: float
    bound: float
    interval: Interval | None


@dataclass(frozen=True)
class _Traits:
    circular: bool = False
    discrete: bool = False


class Axis:
    """The bins, as UHI's plotting protocol asks: pairs of edges."""

    traits = _Traits()

    def __init__(self, edges: Floats) -> None:
        """Bins between neighbouring edges."""
        self._edges = edges

    def __len__(self) -> int:
        """Number of bins."""
        return len(self._edges) - 1

    def __getitem__(self, index: int) -> tuple[float, float]:
        """Lower and upper edge of a bin."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"bin {index} of {len(self)}")
        index %= len(self)
        return float(self._edges[index]), float(self._edges[index + 1])

    def __iter__(self) -> Iterator[tuple[float, float]]:
        """Edges of one bin after another."""
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether the edges are the same."""
        return isinstance(other, Axis) and np.array_equal(self._edges, other._edges)

    __hash__ = None  # type: ignore[assignment]  # as arrays


@dataclass(frozen=True, eq=False, repr=False)
class Histogram:
    """Counts of cosines in B equal bins over [−1, 1], the last closed: ``counts, edges = histogram``.

    int64 counts of all pairs; of a sample float64 estimates, with ``interval_below`` (2, B + 1), the 95 % intervals of
    the share below each edge. ``cosine_error`` is how far rounding can take a cosine, ``extrema`` the least and the
    largest if they are known. ``axes``, ``kind``, ``values()``, ``variances()`` and ``counts()`` are UHI's plotting
    protocol, which plotting packages read; ``boost_histogram.Histogram(histogram)`` and ``hist.Hist(histogram)`` copy.
    """

    total: NDArray[Any]
    edges: Floats
    cosine_error: float
    extrema: tuple[float, float] | None = None
    variance: Floats | None = None
    interval_below: Floats | None = None

    def __post_init__(self) -> None:
        """A frozen result's arrays are read-only too."""
        for array in (self.total, self.edges, self.variance, self.interval_below):
            if array is not None:
                array.setflags(write=False)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Counts and edges, as ``numpy.histogram`` gives them."""
        return iter((self.total, self.edges))

    def __len__(self) -> int:
        """Number of bins."""
        return len(self.total)

    def __repr__(self) -> str:
        """Bins and what is in them."""
        return f"Histogram({len(self)} bins over [-1, 1], {self.pairs:,} pairs)"

    @property
    def pairs(self) -> int:
        """Pairs counted, or, of a sample, estimated."""
        return round(float(self.total.sum()))

    @property
    def density(self) -> Floats:
        """Counts over pairs and the width of a bin: it integrates to 1; nan without a pair."""
        with np.errstate(invalid="ignore"):
            density: Floats = self.total / (self.total.sum() * np.diff(self.edges))
        return density

    @property
    def axes(self) -> tuple[Axis]:
        """UHI: the one axis."""
        return (Axis(self.edges),)

    @property
    def kind(self) -> str:
        """UHI: counts, not means."""
        return "COUNT"

    def values(self) -> Floats:
        """UHI: the counts as float64."""
        return self.total.astype(np.float64)

    def variances(self) -> Floats:
        """UHI: variances over the draw of a sample; of all pairs, as the protocol has it, the counts themselves."""
        return self.values() if self.variance is None else self.variance.copy()

    def counts(self) -> Floats:
        """UHI: the counts, and of a sample the number of independent pairs that would be as certain."""
        values, variances = self.values(), self.variances()
        return np.divide(values**2, variances, out=np.zeros_like(values), where=variances > 0)

    def _to_boost_histogram_(self) -> Any:
        """What boost-histogram and hist ask for when they are given another's histogram."""
        import boost_histogram

        storage = boost_histogram.storage.Int64() if self.variance is None else boost_histogram.storage.Weight()
        copy = boost_histogram.Histogram(boost_histogram.axis.Regular(len(self), -1, 1), storage=storage)
        copy[...] = self.total if self.variance is None else np.stack((self.total, self.variance), -1)
        return copy

    def quantile(self, q: ArrayLike) -> Quantile:
        """The least c such that a share q or more of the pairs have a cosine ≤ c (``inverted_cdf``), q in [0, 1].

        The value is the middle of what is known: a bin, cut off at the least and the largest cosine; the bound is half
        of that and ``cosine_error``. nan without a pair.
        """
        shares = np.asarray(q, dtype=np.float64)
        if not ((shares >= 0) & (shares <= 1)).all():
            raise ValueError(f"q: expected numbers from 0 to 1, got {q!r}")
        value, bound = self._quantile(shares)
        interval = None if self.interval_below is None else self._quantile_interval(shares)
        if shares.ndim == 0:
            value, bound = float(value), float(bound)
            interval = None if interval is None else Interval(float(interval.low), float(interval.high))
        return Quantile(value, bound, interval)

    def _quantile(self, shares: Floats) -> tuple[Any, Any]:
        below = self.total.cumsum()
        if not len(below) or not below[-1]:
            return np.full(shares.shape, np.nan), np.full(shares.shape, np.nan)
        exact = self.interval_below is None
        # In a sample the rank is any number; of all pairs it is the place in their order, from 1.
        rank = np.maximum(np.ceil(shares * below[-1]), 1) if exact else np.maximum(shares * below[-1], 1e-300)
        bin = below.searchsorted(np.minimum(rank, below[-1]))
        low, high = self.edges[bin], self.edges[bin + 1]
        if self.extrema is not None:
            least, largest = self.extrema
            low, high = np.clip(low, least, largest), np.clip(high, least, largest)
            if exact:
                high = np.where(rank == 1, low, high)
                low = np.where(rank == below[-1], high, low)
        return (low + high) / 2, (high - low) / 2 + self.cosine_error

    def _quantile_interval(self, shares: Floats) -> Interval:
        """Woodruff (1952): between the edges whose interval of the share below them may hold q."""
        assert self.interval_below is not None
        lowest, highest = self.interval_below
        # Pointwise intervals need not grow with the edge: the first edge that may hold q, and the last.
        first = np.maximum.accumulate(highest).searchsorted(shares) - 1
        last = np.minimum.accumulate(lowest[::-1])[::-1].searchsorted(shares)
        low, high = self.edges[np.maximum(first, 0)], self.edges[np.minimum(last, len(self))]
        return Interval(np.maximum(low - self.cosine_error, -1), np.minimum(high + self.cosine_error, 1))

    def share_above(self, t: float) -> Share:
        """Share of the pairs above t, to within half of the share of the bin that holds t; nan without a pair.

        Where t is an edge the bound is 0, and a pair exactly at t counts as above.
        """
        if not -1 <= t <= 1:
            raise ValueError(f"t: expected a cosine from -1 to 1, got {t!r}")
        if not self.total.any():
            return Share(np.nan, np.nan, None)
        lower, upper = self._edges_around(t)
        above = self.total[::-1].cumsum()[::-1]
        shares = [float(above[edge] / above[0]) if edge < len(above) else 0.0 for edge in (lower, upper)]
        interval = None
        if self.interval_below is not None:
            interval = Interval(
                float(1 - self.interval_below[1][upper]),
                float(1 - self.interval_below[0][lower]),
            )
        return Share(sum(shares) / 2, (shares[0] - shares[1]) / 2, interval)

    def _edges_around(self, t: float) -> tuple[int, int]:
        """The last edge that is not above t and the first that is not below."""
        return int(self.edges.searchsorted(t, side="right")) - 1, int(self.edges.searchsorted(t, side="left"))
