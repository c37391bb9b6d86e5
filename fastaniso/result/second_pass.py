"""What a second look at the rows tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fastaniso.result.base import Dropped, Result, number, row_count, table

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_SHOWN = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True, eq=False)
class CosineToMean(Result):
    """Cosine of each row to the mean row: ``mean``, ``std`` over n (not n−1), least and largest, any ``quantile``.

    ``cosines`` (rows,) are those of the rows counted over all leading axes, nan where a row was left out.
    """

    mean: float
    std: float
    min: float
    max: float
    n: int
    dim: int
    dropped: Dropped
    provenance: tuple[str, ...]
    version: str
    cosines: NDArray[np.float64] = field(repr=False)

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "mean": "of u_i . m / |m|, u_i = x_i / |x_i|, m the mean of x_i: from -1 to 1",
        "std": "over n",
        "quantile": "least c with a share q or more of the rows at or below it",
    }

    def __post_init__(self) -> None:
        """A frozen result's arrays are read-only too."""
        self.cosines.setflags(write=False)

    def quantile(self, q: ArrayLike) -> NDArray[np.float64]:
        """The least c such that a share q or more of the rows have a cosine ≤ c; nan when there is no row."""
        kept = self.cosines[~np.isnan(self.cosines)]
        if not len(kept):
            return np.full(np.shape(q), np.nan)
        found: NDArray[np.float64] = np.asarray(np.quantile(kept, np.asarray(q), method="inverted_cdf"))
        return found

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        quantiles = zip(_SHOWN, self.quantile(_SHOWN).tolist(), strict=True)
        return "\n".join(
            table(
                [
                    ("rows", row_count(self.n, self.dim, self.dropped)),
                    ("mean cosine to the mean", number(self.mean)),
                    ("  std", number(self.std)),
                    ("  least, largest", f"{number(self.min)}, {number(self.max)}"),
                    *((f"{q:.0%} quantile", number(value)) for q, value in quantiles),
                    ("from", f"{'; '.join(self.provenance) or 'nothing'}, fastaniso {self.version}"),
                ]
            )
        )
