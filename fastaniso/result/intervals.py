"""How sure a value is: its interval over groups of rows, and how it settles as rows are added."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastaniso.result.base import Dropped, Result, number, row_count, table
from fastaniso.result.histogram import Interval

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class MeanCosineInterval(Result):
    """The mean cosine with its 95 % confidence ``interval`` over the draw of independent groups, such as documents.

    ``standard_error`` is the jackknife's; ``without`` (G,) holds the value without each group in turn, in order of the
    ``labels`` (G,): a group that moves it far is worth a look.
    """

    mean: float
    interval: Interval
    standard_error: float
    groups: int
    across: bool
    n: int
    dim: int
    dropped: Dropped
    provenance: tuple[str, ...]
    version: str
    labels: NDArray[np.int64] = field(repr=False)
    without: NDArray[np.float64] = field(repr=False)

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "mean": "over the ordered pairs i != j of all rows or, across, of rows of two groups",
        "standard_error": "jackknife: sqrt((G-1)/G sum (mean without a group - their mean)^2)",
        "interval": "95 %, mean +- Student's t of G-1 degrees of freedom times the standard error",
    }

    def __post_init__(self) -> None:
        """A frozen result's arrays are read-only too."""
        for array in (self.labels, self.without):
            array.setflags(write=False)

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        low, high = self.interval
        return "\n".join(
            table(
                [
                    ("rows", row_count(self.n, self.dim, self.dropped)),
                    ("groups", f"{self.groups:,}, taken to be independent"),
                    ("mean cosine", f"{number(self.mean)} [{number(low)}, {number(high)}]"),
                    ("  of", "pairs of rows of two groups" if self.across else "all pairs of rows"),
                    ("  standard error", number(self.standard_error)),
                    ("from", f"{'; '.join(self.provenance) or 'nothing'}, fastaniso {self.version}"),
                ]
            )
        )


@dataclass(frozen=True, eq=False)
class SubsampleCurve(Result):
    """A metric of growing random subsets: over ``repeats`` disjoint ones of each of the ``sizes``, ``means``, ``stds``.

    ``value`` is that of all n rows, ``expected_std`` what the spread of subsets says of it: the last of ``stds`` shrunk
    by √(size/n), as for rows drawn independently. ``values`` is (sizes, repeats).
    """

    metric: str
    value: float
    expected_std: float
    sizes: tuple[int, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]
    repeats: int
    seed: int
    n: int
    dim: int
    dropped: Dropped
    convention: str
    provenance: tuple[str, ...]
    version: str
    values: NDArray[np.float64] = field(repr=False)

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "stds": "over the repeats (over their number less one); subsets of one size are disjoint",
        "expected_std": "last std * sqrt(size / n)",
    }

    def __post_init__(self) -> None:
        """A frozen result's arrays are read-only too."""
        self.values.setflags(write=False)

    def plot(self) -> Figure:
        """The subsets' values over their size, with mean and spread, and the value of all rows: not shown.

        Returns a ``matplotlib.figure.Figure``; needs ``pip install 'fastaniso[plot]'``.
        """
        from fastaniso.report import plot_subsamples

        return plot_subsamples(self)

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        curve = zip(self.sizes, self.means, self.stds, strict=True)
        return "\n".join(
            table(
                [
                    ("rows", row_count(self.n, self.dim, self.dropped)),
                    ("metric", f"{self.metric}, {self.repeats} disjoint random subsets of each size"),
                    *((f"  {size:,} rows", f"{number(mean)} ± {number(std)}") for size, mean, std in curve),
                    (f"  all {self.n:,} rows", f"{number(self.value)} ± {number(self.expected_std)} expected"),
                    ("from", f"{'; '.join(self.provenance) or 'nothing'}, fastaniso {self.version}"),
                ]
            )
        )
