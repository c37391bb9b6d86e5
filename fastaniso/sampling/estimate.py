"""Estimates from a sample of tiles, and confidence intervals over its draw (the rows are what they are).

A total is estimated by Σ over strata of (tiles / tiles drawn)·(sum over those drawn) (Horvitz & Thompson 1952), without
bias; its variance is that of tiles within strata, with the correction for a finite population. Intervals take Student's
t with Satterthwaite's degrees of freedom.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastaniso._version import __version__
from fastaniso.pairing.sets import Sets
from fastaniso.result import Extrema, Extreme, Histogram, Interval, Intervals, PairStatistics, Sample, Share
from fastaniso.sampling.draw import ABSOLUTE, GIVEN, SampleSums
from fastaniso.state import Pairs
from fastaniso.statistics import pairs as statistics

Floats = NDArray[np.float64]
CONFIDENCE = 0.95


class Estimator:
    """Means over all pairs from the sums over the tiles drawn."""

    def __init__(self, sums: SampleSums, pairs: int) -> None:
        """``pairs`` are those of all tiles."""
        self._strata = sums.strata
        self._pairs = pairs
        self.means: Floats = self._totals([s.sums for s in self._strata]) / pairs

    def _totals(self, sums: list[Any]) -> Floats:
        """Of what was summed over the tiles drawn, the totals over all tiles."""
        total: Floats = sum(s.stratum.tiles / s.drawn * each for s, each in zip(self._strata, sums, strict=True))
        return total

    def histogram(self) -> tuple[Floats, Floats]:
        """Estimated counts, which add up to all pairs, and their variance: two (B,)."""
        counts = [s.histogram.astype(np.float64) for s in self._strata]
        variance, _ = self._combined([s.squares[0] for s in self._strata], [count**2 for count in counts])
        return self._totals(counts), variance * self._pairs**2

    def variance(self, weights: Floats) -> tuple[float, float]:
        """Variance of weights·means, and its degrees of freedom."""
        parts = [(s.products, s.sums) for s in self._strata]
        quadratic = [(weights @ products @ weights, (weights @ sums) ** 2) for products, sums in parts]
        variance, freedom = self._combined([np.asarray(q) for q, _ in quadratic], [np.asarray(s) for _, s in quadratic])
        return float(variance), float(freedom)

    def shares_below(self) -> tuple[Floats, Floats, Floats]:
        """Share of the pairs below the upper edge of each bin, its variance and degrees of freedom: three (B,)."""
        below = [s.histogram.cumsum().astype(np.float64) for s in self._strata]
        variance, freedom = self._combined([s.squares[1] for s in self._strata], [count**2 for count in below])
        return self._totals(below) / self._pairs, variance, freedom

    def _combined(self, squares: list[Floats], squared_sums: list[Floats]) -> tuple[Floats, Floats]:
        """Variance of the mean over all pairs of what was summed a tile, from Σy² and (Σy)² of each stratum."""
        variances, weighted = np.zeros_like(squares[0]), np.zeros_like(squares[0])
        for stratum, square, squared_sum in zip(self._strata, squares, squared_sums, strict=True):
            drawn, tiles = stratum.drawn, stratum.stratum.tiles
            if drawn == tiles:
                continue
            between = (square - squared_sum / drawn).clip(min=0) / (drawn - 1)
            part = between * (tiles / self._pairs) ** 2 * (1 - drawn / tiles) / drawn
            variances += part
            weighted += part**2 / (drawn - 1)
        freedom = np.divide(variances**2, weighted, out=np.full_like(variances, math.inf), where=weighted > 0)
        return variances, freedom


def error_of_mean(sums: SampleSums, pairs: int) -> float:
    """Half the width of the mean's confidence interval."""
    estimator = Estimator(sums, pairs)
    variance, freedom = estimator.variance(_unit(len(estimator.means), 0))
    return float(student(freedom)) * math.sqrt(variance)


def sample_statistics(
    sums: SampleSums, sets: Sets, *, asked: Pairs, of_tiles: int, rows_in_tile: int, seed: int
) -> PairStatistics:
    """Every statistic of the pairs of ``sets``, estimated."""
    estimator = Estimator(sums, sets.pairs)
    means = estimator.means
    first, second, third, fourth = means[:4]
    variance_of_mean, freedom = estimator.variance(_unit(len(means), 0))
    mean = sums.pivot + first
    # The square of an estimated mean is too large by its variance, on average.
    variance = max(second - first**2 + variance_of_mean, 0.0)
    gradient = _unit(len(means), 1) - 2 * first * _unit(len(means), 0)
    spread = variance or math.nan
    exponential = means[GIVEN]
    independent = sum(s.drawn for s in sums.strata) * rows_in_tile
    shares = []
    for place in range(GIVEN + len(asked.uniformity_t), len(means)):
        low, high = share_interval(means[place], *estimator.variance(_unit(len(means), place)), independent)
        shares.append(Share(float(means[place]), 0.0, Interval(float(low), float(high))))
    ends = zip(sums.extrema, sums.extrema_at, strict=True)
    found = Extrema(*(Extreme(float(value), int(i), int(j)) for value, (i, j) in ends))
    error = statistics.cosine_error(asked.dim, sums.provenance)
    return PairStatistics(
        n=sets.n,
        others=sets.others_n,
        dim=asked.dim,
        pairs=sets.pairs,
        dropped=sets.dropped,
        dropped_others=sets.dropped_others,
        mean=float(mean),
        std=math.sqrt(variance),
        skewness=float((third - 3 * first * second + 2 * first**3) / spread**1.5),
        kurtosis=float((fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4) / spread**2 - 3),
        mean_abs=float(means[ABSOLUTE]),
        min=found.min,
        max=found.max,
        uniformity=math.log(exponential),
        uniformity_t=asked.uniformity_t[0],
        thresholds=asked.thresholds,
        shares_above=tuple(shares),
        exact=False,
        sample=Sample(sums.pairs, sums.tiles, of_tiles, rows_in_tile, seed),
        intervals=Intervals(
            mean=_around(mean, variance_of_mean, freedom),
            std=Interval(*(math.sqrt(max(end, 0.0)) for end in _around(variance, *estimator.variance(gradient)))),
            mean_abs=_around(means[ABSOLUTE], *estimator.variance(_unit(len(means), ABSOLUTE))),
            # On the scale of the logarithm, where its ends stay finite.
            uniformity=_around(math.log(exponential), *_relative(estimator, GIVEN)),
        ),
        cosine_error=error,
        accumulator=statistics.ACCUMULATOR,
        provenance=tuple(sorted(sums.provenance)),
        notes=("a sample: the least and the largest cosine are those of the pairs visited",),
        version=__version__,
        histogram=_histogram(estimator, found, error, independent),
    )


def _histogram(estimator: Estimator, found: Extrema, error: float, independent: int) -> Histogram:
    total, variance = estimator.histogram()
    interval = np.zeros((2, len(total) + 1))
    interval[:, 1:] = share_interval(*estimator.shares_below(), independent)
    interval[:, -1] = 1  # all pairs are below the last edge
    extrema = (found.min.value, found.max.value)
    return Histogram(total, statistics.edges(len(total)), error, extrema, variance, interval)


def share_interval(share: Any, variance: Any, freedom: Any, independent: int) -> tuple[Any, Any]:
    """Interval of a share: Clopper & Pearson's, for as many independent pairs as would have its variance.

    So Korn & Graubard (1998): it stays within [0, 1] and holds where few tiles hold any of the pairs counted. Where
    none does, or all pairs drawn are counted, the variance says nothing: ``independent`` pairs stand for the sample.
    """
    share, variance = np.asarray(share, dtype=np.float64).clip(0, 1), np.asarray(variance)
    spread = share * (1 - share)
    # No variance of a share between 0 and 1: every tile was drawn.
    known = (spread > 0) & (variance == 0)
    count = np.divide(spread, variance, out=np.full_like(share, independent), where=(spread > 0) & ~known)
    z = student(np.where(spread > 0, freedom, math.inf))
    low, high = 1 - _largest_share((1 - share) * count, count, z), _largest_share(share * count, count, z)
    return np.where(known, share, low), np.where(known, share, high)


def _largest_share(found: Floats, count: Floats, z: Any) -> Floats:
    """The upper end of Clopper & Pearson's interval, by Paulson's (1942) approximation of the F distribution."""
    a, b = 1 / (9 * (found + 1)), 1 / (9 * np.maximum(count - found, 1e-9))
    # The cube root y of F solves ((1 − b)y − (1 − a))² = z²(by² + a).
    square = (1 - b) ** 2 - z**2 * b
    middle, rest = (1 - a) * (1 - b), (1 - a) ** 2 - z**2 * a
    with np.errstate(invalid="ignore", divide="ignore"):
        root = (middle + np.sqrt(middle**2 - square * rest)) / square
        odds = root**3 * (found + 1) / (count - found)
        # Almost all pairs are among those counted: no smaller share is sure.
        largest: Floats = np.where((square > 0) & (count > found), odds / (1 + odds), 1)
    return np.maximum(largest, found / count)


def student(freedom: Any) -> Any:
    """Student's t at 97.5 %, by Fisher & Cornish's expansion: within 1 % of it from 2 degrees of freedom on."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    n = np.maximum(np.asarray(freedom, dtype=np.float64), 1)
    return (
        z
        + (z**3 + z) / 4 / n
        + (5 * z**5 + 16 * z**3 + 3 * z) / 96 / n**2
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / n**3
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160 / n**4
    )


def _around(value: float, variance: float, freedom: float) -> Interval:
    half = float(student(freedom)) * math.sqrt(variance)
    return Interval(float(value) - half, float(value) + half)


def _relative(estimator: Estimator, place: int) -> tuple[float, float]:
    variance, freedom = estimator.variance(_unit(len(estimator.means), place))
    return variance / float(estimator.means[place]) ** 2, freedom


def _unit(size: int, place: int) -> Floats:
    vector = np.zeros(size)
    vector[place] = 1
    return vector
