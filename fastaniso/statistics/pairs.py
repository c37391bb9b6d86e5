"""Statistics of the cosines of all pairs, from the sums of ``Pairs``."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fastaniso._version import __version__
from fastaniso.result import Dropped, Extrema, Extreme, Histogram, PairStatistics, Share
from fastaniso.state import Pairs
from fastaniso.statistics.cosine import ratio
from fastaniso.statistics.host import to_host

ACCUMULATOR = "float64 sums, int64 counts"


def mean_and_shape(counts: Tensor, moments: Tensor) -> Tensor:
    """Mean, std, skewness, excess kurtosis and mean |c|: (5,), from ``Pairs.counts`` and ``Pairs.moments``.

    The std is over the pairs' number; skewness and kurtosis are nan where it is 0.
    """
    mean, second, third, fourth, absolute = ratio(moments, counts[0]).unbind()
    spread = torch.where(second > 0, second, torch.nan)
    return torch.stack((mean, second.clamp(min=0).sqrt(), third / spread**1.5, fourth / spread**2 - 3, absolute))


def about(pivot: Tensor, counts: Tensor, moments: Tensor) -> Tensor:
    """Σ(c − pivot)^p for p = 1..4, (…, 4), of central sums ``moments`` (…, 5) over ``counts`` (…) pairs."""
    total, second, third, fourth, _ = moments.unbind(-1)
    delta = total / counts.clamp(min=1) - pivot
    return torch.stack(
        (
            total - counts * pivot,
            second + counts * delta**2,
            third + 3 * delta * second + counts * delta**3,
            fourth + 4 * delta * third + 6 * delta**2 * second + counts * delta**4,
        ),
        -1,
    )


def central(pivot: Tensor, counts: Tensor, powers: Tensor) -> tuple[Tensor, ...]:
    """Σc and central Σ(c − c̄)^p for p = 2..4 from sums of powers about a pivot: ``about`` undone."""
    first, second, third, fourth = powers.unbind(-1)
    delta = first / counts.clamp(min=1)
    return (
        first + counts * pivot,
        second - counts * delta**2,
        third - 3 * delta * second + 2 * counts * delta**3,
        fourth - 4 * delta * third + 6 * delta**2 * second - 3 * counts * delta**4,
    )


def uniformity(counts: Tensor, exponentials: Tensor) -> Tensor:
    """log E exp(2t(c − 1)) of each t: (T,)."""
    return ratio(exponentials, counts[0]).log()


def extrema(values: Tensor, places: Tensor) -> Tensor:
    """Value, i, j of the least and of the largest cosine: (2, 3) float64; nan, −1, −1 where there is no pair."""
    known = torch.where(places[:, 0] >= 0, values, torch.nan)
    return torch.cat((known[:, None], places.double()), 1)


def to_extrema(found: np.typing.NDArray[np.float64]) -> Extrema:
    """``extrema`` on the host."""
    return Extrema(*(Extreme(float(value), int(i), int(j)) for value, i, j in found.reshape(2, 3)))


def cosine_error(dim: int, provenance: frozenset[str]) -> float:
    """Bound on the rounding of one cosine of unit rows of ``dim`` numbers: dim products added up one by one.

    Each addition errs by half a unit of the last place of what is at most Σ|u_i·u_j| ≤ 1, and the unit rows, the scales
    and the bins by a few more. float64 rows are multiplied in float64, all others in float32. Of fast products both
    rows were rounded to the eleven digits of float16 before.
    """
    if any(name.endswith("fast") for name in provenance):
        return 2.0**-10 + (dim + 8) * 2.0**-24
    wide = bool(provenance) and all(name.startswith("float64") for name in provenance)
    return (dim + 8) * (2.0**-53 if wide else 2.0**-24)


def edges(bins: int) -> np.typing.NDArray[np.float64]:
    """The edges of B equal bins over [−1, 1]."""
    return np.linspace(-1, 1, bins + 1)


def histogram(state: Pairs) -> Histogram:
    """The counts of the state, with its extrema where it holds them."""
    nothing = state.exponentials.new_empty(0)
    counts, found = to_host(
        nothing.long() if state.histogram is None else state.histogram,
        nothing if state.extrema is None else state.extrema,
    )
    known = len(found) > 0 and math.isfinite(found[0])
    return Histogram(
        total=counts.astype(np.int64),
        edges=edges(len(counts)),
        cosine_error=cosine_error(state.dim, state.provenance),
        extrema=(float(found[0]), float(found[1])) if known else None,
    )


def pair_statistics(
    state: Pairs, *, n: int, dropped: Dropped, others: int | None = None, dropped_others: Dropped | None = None
) -> PairStatistics:
    """Every statistic that ``state`` holds, exact: of n kept rows, or with as many ``others``."""
    nothing = state.exponentials.new_empty(0)
    counts, shape, uniformities, above, found = to_host(
        state.counts,
        nothing if state.moments is None else mean_and_shape(state.counts, state.moments),
        uniformity(state.counts, state.exponentials),
        state.above,
        nothing if state.extrema is None or state.extrema_at is None else extrema(state.extrema, state.extrema_at),
    )
    pairs = int(counts[0])
    mean, std, skewness, kurtosis, mean_abs = map(float, shape) if len(shape) else [None] * 5
    least, largest = to_extrema(found) if len(found) else (None, None)
    return PairStatistics(
        n=n,
        others=others,
        dim=state.dim,
        pairs=pairs,
        dropped=dropped,
        dropped_others=dropped_others,
        mean=mean,
        std=std,
        skewness=skewness,
        kurtosis=kurtosis,
        mean_abs=mean_abs,
        min=least,
        max=largest,
        uniformity=float(uniformities[0]) if len(uniformities) else None,
        uniformity_t=state.uniformity_t[0] if state.uniformity_t else None,
        thresholds=state.thresholds,
        shares_above=tuple(Share(int(count) / pairs if pairs else math.nan, 0.0, None) for count in above),
        exact=True,
        sample=None,
        intervals=None,
        cosine_error=cosine_error(state.dim, state.provenance),
        accumulator=ACCUMULATOR,
        provenance=tuple(sorted(state.provenance)),
        notes=(),
        version=__version__,
        histogram=histogram(state),
    )
