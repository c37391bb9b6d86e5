"""What a visit to all pairs of rows, or to a sample of them, tells about their cosines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from fastaniso.result.base import Dropped, Result, number, row_count, table
from fastaniso.result.histogram import Histogram, Interval, Quantile, Share

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

_SHOWN = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

CONVENTIONS = {
    "pairs": "unordered pairs i < j of one set, or all n*m pairs of two",
    "mean": "over these pairs",
    "std": "over these pairs (over their number, not one less)",
    "skewness": "third central moment / std^3",
    "kurtosis": "excess: fourth central moment / std^4 - 3, 0 of a normal distribution",
    "mean_abs": "mean of |c|",
    "min": "least cosine and its rows (i, j), the first in order of (i, j) among equals",
    "max": "largest cosine and its rows (i, j), likewise",
    "uniformity": "log of the mean of exp(-t |u_i - u_j|^2) = exp(2t(c - 1))",
    "shares_above": "share of pairs with c > threshold",
    "quantiles": "least c with a share q or more of the pairs at or below it, to within the bound",
    "intervals": "95 % confidence, over the draw of the sample",
    "cosine_error": "bound on what rounding of the products does to one cosine",
}


class Extreme(NamedTuple):
    """A cosine and its rows, counted over all leading axes; −1 and −1 where there is no pair."""

    value: float
    i: int
    j: int


class Extrema(NamedTuple):
    """The least and the largest cosine."""

    min: Extreme
    max: Extreme


@dataclass(frozen=True)
class Sample:
    """Pairs visited in place of all: ``tiles`` of ``of_tiles``, ``rows_in_tile`` rows square (or one more a side)."""

    pairs: int
    tiles: int
    of_tiles: int
    rows_in_tile: int
    seed: int


class Intervals(NamedTuple):
    """95 % confidence intervals of what a sample estimates; None for what was not asked for."""

    mean: Interval | None
    std: Interval | None
    mean_abs: Interval | None
    uniformity: Interval | None


@dataclass(frozen=True, eq=False)
class PairStatistics(Result):
    """Cosines over the unordered pairs i < j of n rows, or over the n·m pairs of two sets.

    Exact, or estimated from a ``sample`` with 95 % confidence ``intervals`` (quantiles and shares carry their own);
    then ``min`` and ``max`` are those of the pairs drawn. nan means undefined (no pair, or no spread), None that the
    value was not asked for.
    """

    n: int
    others: int | None
    dim: int
    pairs: int
    dropped: Dropped
    dropped_others: Dropped | None
    mean: float | None
    std: float | None
    skewness: float | None
    kurtosis: float | None
    mean_abs: float | None
    min: Extreme | None
    max: Extreme | None
    uniformity: float | None
    uniformity_t: float | None
    thresholds: tuple[float, ...]
    shares_above: tuple[Share, ...]
    exact: bool
    sample: Sample | None
    intervals: Intervals | None
    cosine_error: float
    accumulator: str
    provenance: tuple[str, ...]
    notes: tuple[str, ...]
    version: str
    histogram: Histogram = field(repr=False)

    _conventions = CONVENTIONS

    def quantile(self, q: ArrayLike) -> Quantile:
        """The q-quantile of the cosine and the bound on its error, from the histogram: ``Histogram.quantile``."""
        return self.histogram.quantile(q)

    def share_above(self, t: float) -> Share:
        """Share of the pairs with a cosine above t: exact for the ``thresholds``, else ``Histogram.share_above``."""
        for threshold, share in zip(self.thresholds, self.shares_above, strict=True):
            if threshold == t:
                return share
        return self.histogram.share_above(t)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict of numbers and strings, with quantiles and conventions; the histogram's counts stay out."""
        quantiles = {str(q): self.quantile(q)._asdict() for q in _SHOWN}
        return {**super().to_dict(), "quantiles": quantiles, "bins": len(self.histogram)}

    def plot(self) -> Figure:
        """The density of the cosine with its mean and quantiles, and the share above each value: not shown.

        Returns a ``matplotlib.figure.Figure``; needs ``pip install 'fastaniso[plot]'``.
        """
        from fastaniso.report import plot_pairs

        return plot_pairs(self)

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        return "\n".join((*table(_rows(self)), *self.notes))


@dataclass(frozen=True, eq=False)
class GroupPairs(Result):
    """``within``: over the pairs of rows of one group, all groups together; ``between``: of two different groups.

    ``between`` is all pairs less those within: it has no extrema.
    """

    groups: int
    within: PairStatistics
    between: PairStatistics

    def to_dict(self) -> dict[str, Any]:
        """The dicts of both, and the number of groups."""
        return {"groups": self.groups, "within": self.within.to_dict(), "between": self.between.to_dict()}

    def __str__(self) -> str:
        """Both tables."""
        return f"within {self.groups:,} groups\n{self.within}\n\nbetween groups\n{self.between}"


def _rows(p: PairStatistics) -> list[tuple[str, str]]:
    rows = [("rows", row_count(p.n, p.dim, p.dropped))]
    if p.others is not None and p.dropped_others is not None:
        rows.append(("other rows", row_count(p.others, p.dim, p.dropped_others)))
    rows.append(("pairs", f"{p.pairs:,} ({_how_many(p)})"))
    intervals = p.intervals or Intervals(None, None, None, None)
    named = (
        ("mean cosine", p.mean, intervals.mean),
        ("  std", p.std, intervals.std),
        ("  skewness", p.skewness, None),
        ("  excess kurtosis", p.kurtosis, None),
        ("mean |cosine|", p.mean_abs, intervals.mean_abs),
        (f"uniformity, t = {p.uniformity_t}", p.uniformity, intervals.uniformity),
    )
    rows += [(label, _estimate(value, interval)) for label, value, interval in named if value is not None]
    for label, extreme in (("least", p.min), ("largest", p.max)):
        if extreme is not None and p.pairs:
            rows.append((f"{label} cosine", f"{number(extreme.value)} of rows {extreme.i} and {extreme.j}"))
    quantiles = p.quantile(_SHOWN if p.pairs else ())
    for q, value, bound in zip(_SHOWN, quantiles.value, quantiles.bound, strict=False):
        rows.append((f"{q:.0%} quantile", f"{number(value)} ± {bound:.1g}"))
    for threshold, share in zip(p.thresholds, p.shares_above, strict=True):
        rows.append((f"share above {threshold:g}", _estimate(share.value, share.interval)))
    rows.append(("from", f"{'; '.join(p.provenance) or 'nothing'}, {p.accumulator}, fastaniso {p.version}"))
    return rows


def _how_many(p: PairStatistics) -> str:
    if p.sample is None:
        return "all unordered pairs, exact" if p.others is None else "all pairs of two sets, exact"
    s = p.sample
    return f"{s.pairs:,} visited in {s.tiles:,} of {s.of_tiles:,} tiles; 95 % intervals in brackets"


def _estimate(value: float, interval: Interval | None) -> str:
    return number(value) + ("" if interval is None else f" [{number(interval.low)}, {number(interval.high)}]")
