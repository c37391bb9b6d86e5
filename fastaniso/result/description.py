"""What linear and Gram passes tell about rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from fastaniso.result.base import Dropped, Result, number, row_count, table

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Drift:
    """Drift of the mean: ‖x̄‖ in units of x; without scale ``relative`` = ‖x̄‖/E‖x‖ and ``unit`` = ‖ū‖, u = x/‖x‖."""

    norm_of_mean: float
    relative: float
    unit: float


@dataclass(frozen=True)
class Norms:
    """Norms ‖x‖ of the rows; ``std`` over n (not n−1)."""

    mean: float
    std: float
    min: float
    max: float


class TopDimensions(NamedTuple):
    """The dimensions that contribute most and their shares of the mean cosine, largest first."""

    indices: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DimensionContributions:
    """Contribution of each dimension to the mean cosine, ``values`` (d,): they sum to ``mean_cosine``."""

    values: NDArray[np.float64]
    mean_cosine: float

    def __post_init__(self) -> None:
        """A frozen result's arrays are read-only too."""
        self.values.setflags(write=False)

    def top(self, k: int) -> TopDimensions:
        """The ``k`` dimensions with the largest contributions, largest first."""
        indices = (-self.values).argsort(kind="stable")[:k]
        return TopDimensions(indices, self.values[indices])

    def mean_without_top(self, k: int) -> float:
        """Sum of the contributions but the ``k`` largest: norms are still those of the full rows.

        Normalising the shortened rows again is another quantity and takes another pass: drop the columns of
        ``top(k).indices`` and call ``mean_cosine``.
        """
        return float(self.values[(-self.values).argsort(kind="stable")[k:]].sum())


@dataclass(frozen=True, eq=False)
class OutlierDimensions:
    """Size ``rms`` √(Σx²/n) and ``variance`` (over n) of each dimension, (d,), and how much some stand out.

    ``kurtosis`` E[r⁴]/(E[r²])² and ``max_over_median`` of the sizes r over dimensions; ``dimensions`` with a variance
    of ``factor`` times the mean variance or more, the largest first.
    """

    rms: NDArray[np.float64]
    variance: NDArray[np.float64]
    kurtosis: float
    max_over_median: float
    dimensions: tuple[int, ...]
    factor: float

    def __post_init__(self) -> None:
        """A frozen result's arrays are read-only too."""
        for array in (self.rms, self.variance):
            array.setflags(write=False)


@dataclass(frozen=True, eq=False)
class GroupCosine:
    """Mean cosines by group: ``within`` (G,) over the ordered pairs of a group, nan where it has fewer than two rows.

    ``pooled_within`` is Σ pairs_g·mean_g/Σ pairs_g and ``pooled_between`` the mean over all ordered pairs of rows of
    two different groups.
    """

    labels: NDArray[np.int64]
    counts: NDArray[np.int64]
    within: NDArray[np.float64]
    pooled_within: float
    pooled_between: float
    dropped: Dropped
    _unit_means: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        """A frozen result's arrays are read-only too."""
        for array in (self.labels, self.counts, self.within):
            array.setflags(write=False)

    @property
    def between(self) -> NDArray[np.float64]:
        """Mean cosine of each two groups, s_a·s_b/(n_a n_b), ``within`` on the diagonal: (G, G), made on request."""
        cosines = self._unit_means @ self._unit_means.T
        cosines.diagonal().copy_(cosines.new_tensor(self.within.tolist()))
        matrix: NDArray[np.float64] = cosines.cpu().numpy()
        return matrix


CONVENTIONS = {
    "mean_cosine": "over the n(n-1) ordered pairs i != j",
    "cosine_std": "over the same pairs",
    "drift": "norm of the mean; over the mean norm; norm of the mean unit row",
    "norms": "std over n",
    "participation_ratio": "tr(C)^2 / |C|_F^2, centred",
    "isoscore": "(participation ratio - 1) / (d - 1), centred",
    "effective_rank": "exp of the entropy of singular values, uncentred",
    "contributions": "(s_k^2 - sum u_k^2) / (n(n-1)), norms of the full rows",
    "within_groups": "pooled over the ordered pairs of one group",
    "between_groups": "over the ordered pairs of two groups",
}


@dataclass(frozen=True, eq=False)
class Description(Result):
    """What the rows look like: exact values over all n(n−1) ordered pairs, with counts, conventions and provenance.

    nan means undefined (fewer than two rows, no spread), None that the value was not asked for. ``eigenvalues`` are
    those of Σxxᵀ/n, uncentred, largest first; ``top_dimensions`` are (dimension, contribution) pairs. ``metrics`` are
    those asked for by name, a number each or numbers by name; ``conventions`` tells their options.
    """

    n: int
    dim: int
    pairs: int
    dropped: Dropped
    mean_cosine: float
    cosine_std: float | None
    drift: Drift
    norms: Norms
    participation_ratio: float | None
    isoscore: float | None
    effective_rank: float | None
    top_dimensions: tuple[tuple[int, float], ...]
    mean_cosine_without_top3: float
    groups: int | None
    within_groups: float | None
    between_groups: float | None
    metrics: Mapping[str, float | Mapping[str, float]]
    exact: bool
    accumulator: str
    provenance: tuple[str, ...]
    notes: tuple[str, ...]
    version: str
    contributions: DimensionContributions = field(repr=False)
    eigenvalues: NDArray[np.float64] | None = field(repr=False)
    metric_conventions: Mapping[str, str] = field(repr=False)

    _conventions = CONVENTIONS

    def __post_init__(self) -> None:
        """A frozen result's arrays are read-only too."""
        if self.eigenvalues is not None:
            self.eigenvalues.setflags(write=False)

    @property
    def conventions(self) -> dict[str, str]:
        """How each value is defined, and with which options."""
        return {**super().conventions, **self.metric_conventions}

    def plot(self) -> Figure:
        """Contributions by dimension, the spectrum where the rows' scatter was accumulated, the figures: not shown.

        Returns a ``matplotlib.figure.Figure``; needs ``pip install 'fastaniso[plot]'``.
        """
        from fastaniso.report import plot_site

        return plot_site(self, "; ".join(self.provenance))

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        return "\n".join((*_table(self), *self.notes))


# Metrics that have a row of their own in every table.
_ABOVE = {*CONVENTIONS, "dimension_contributions", "group_cosine"}


def _table(d: Description) -> list[str]:
    rows: list[tuple[str, str]] = [
        ("rows", row_count(d.n, d.dim, d.dropped)),
        ("pairs", f"{d.pairs:,} (all ordered pairs, exact)"),
        ("mean cosine", number(d.mean_cosine)),
    ]
    optional = (
        ("cosine std", d.cosine_std),
        ("  within groups", d.within_groups),
        ("  between groups", d.between_groups),
        ("  without the top 3 dimensions", d.mean_cosine_without_top3),
    )
    rows += [(label, number(value)) for label, value in optional if value is not None]
    top = ", ".join(f"{dimension}: {number(value)}" for dimension, value in d.top_dimensions[:3])
    rows += [
        ("top dimensions", top),
        ("drift ‖mean‖", f"{number(d.drift.norm_of_mean)} ({number(d.drift.relative)} of the mean norm)"),
        ("norms", f"{number(d.norms.mean)} ± {number(d.norms.std)}"),
        ("  from, to", f"{number(d.norms.min)}, {number(d.norms.max)}"),
    ]
    spectral = (
        ("participation ratio", d.participation_ratio, f" of {d.dim}"),
        ("IsoScore", d.isoscore, ""),
        ("effective rank (uncentred)", d.effective_rank, f" of {d.dim}"),
    )
    rows += [(label, number(value) + unit) for label, value, unit in spectral if value is not None]
    rows += [(label, _shown(value)) for label, value in d.metrics.items() if label not in _ABOVE]
    rows.append(("from", f"{'; '.join(d.provenance) or 'nothing'}, {d.accumulator} sums, fastaniso {d.version}"))
    return table(rows)


def _shown(value: float | Mapping[str, float]) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number(part)}" for name, part in value.items())
    return number(value)
