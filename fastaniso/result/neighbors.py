"""What the nearest neighbours of rows tell: intrinsic dimension and hubness."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from fastaniso.result.base import Dropped, Result, number, row_count, table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class NearestNeighbors(NamedTuple):
    """The k largest cosines of each row and the candidates they are with: both ``[..., k]``, largest first."""

    cosines: Tensor
    indices: Tensor


@dataclass(frozen=True)
class TwoNN(Result):
    """Intrinsic ``dimension`` of the unit rows from the ratio of the two nearest distances of each (Facco et al. 2017).

    ``used`` of n rows were fitted, the ``share`` with the smallest ratios; ``duplicates`` are rows left out because
    another with the same direction stays. ``uncertain`` rows have neighbours that the products' rounding cannot tell
    from others: pass ``hidden.double()`` where they are many.
    """

    dimension: float
    n: int
    dim: int
    used: int
    share: float
    duplicates: int
    uncertain: int
    dropped: Dropped
    provenance: tuple[str, ...]
    version: str

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "dimension": "slope through the origin of -log(1 - F) on log(r2 / r1), F = rank / rows",
        "share": "share of the rows that is fitted, those with the smallest ratios",
        "distance": "|u_i - u_j| of unit rows, in float64",
    }

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        rows = [
            ("rows", row_count(self.n, self.dim, self.dropped)),
            ("two-NN dimension", number(self.dimension)),
            ("  fitted", f"{self.used:,} rows, the {self.share:.0%} with the smallest ratios"),
        ]
        return "\n".join(table([*rows, *_doubts(self)]))


@dataclass(frozen=True)
class LevinaBickel(Result):
    """Intrinsic ``dimension`` of the unit rows by maximum likelihood from k neighbours (Levina & Bickel 2004).

    Of a row 1/m̂ = Σ_{j<k} log(r_k/r_j)/(k − 1). ``average`` says what is averaged over rows: "inverse" 1/m̂ (MacKay &
    Ghahramani 2005), "direct" m̂. ``duplicates`` and ``uncertain`` as in ``TwoNN``.
    """

    dimension: float
    k: int
    average: str
    n: int
    dim: int
    used: int
    duplicates: int
    uncertain: int
    dropped: Dropped
    provenance: tuple[str, ...]
    version: str

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "dimension": "of a row 1/m = sum over j < k of log(r_k / r_j) / (k - 1)",
        "average": "inverse: 1 / mean of 1/m; direct: mean of m",
        "distance": "|u_i - u_j| of unit rows, in float64",
    }

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        averaged = "1/m̂" if self.average == "inverse" else "m̂"
        rows = [
            ("rows", row_count(self.n, self.dim, self.dropped)),
            ("Levina-Bickel dimension", f"{number(self.dimension)} (k = {self.k}, mean of {averaged})"),
        ]
        return "\n".join(table([*rows, *_doubts(self)]))


@dataclass(frozen=True, eq=False)
class Hubness(Result):
    """How unevenly rows are neighbours of others: ``occurrences`` (candidates,), how often each is among the k nearest.

    ``skewness`` of the occurrences (Radovanović et al. 2010), ``robin_hood`` the share of them that would have to move
    for all to be equal (Feldbauer et al. 2018), ``antihubs`` the share of candidates that are nobody's neighbour.
    Occurrences of a dropped candidate are −1.
    """

    skewness: float
    robin_hood: float
    antihubs: float
    largest: int
    k: int
    n: int
    candidates: int
    dim: int
    dropped: Dropped
    provenance: tuple[str, ...]
    version: str
    occurrences: NDArray[np.int64] = field(repr=False)

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "skewness": "third central moment / std^3 of the k-occurrence, over the candidates' number",
        "robin_hood": "half the sum of |occurrence - mean| / sum of occurrences",
        "antihubs": "share of candidates with occurrence 0",
    }

    def __post_init__(self) -> None:
        """A frozen result's arrays are read-only too."""
        self.occurrences.setflags(write=False)

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        return "\n".join(
            table(
                [
                    ("rows", row_count(self.n, self.dim, self.dropped)),
                    (f"skewness of {self.k}-occurrence", number(self.skewness)),
                    ("Robin Hood index", number(self.robin_hood)),
                    ("antihubs", f"{self.antihubs:.4%} of {self.candidates:,} candidates"),
                    ("largest hub", f"neighbour of {self.largest:,} rows"),
                ]
            )
        )


def _doubts(result: TwoNN | LevinaBickel) -> list[tuple[str, str]]:
    rows = []
    if result.duplicates:
        rows.append(("duplicates", f"{result.duplicates:,} rows left out"))
    if result.uncertain:
        rows.append(("uncertain", f"{result.uncertain:,} rows; pass hidden.double()"))
    return rows
