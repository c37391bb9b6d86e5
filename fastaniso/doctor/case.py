"""The small case that every backend is proven on, and how far a right one may be off."""

from __future__ import annotations

import torch
from torch import Tensor

from fastaniso.rows import Rows, as_rows

ROWS, DIM = 500, 67
GROUPS = 4


class Case:
    """500 rows of 67 numbers with a drift, every seventh masked, in 4 groups: odd sizes, where kernels go wrong.

    ``cosines`` (500, 500) are those of all rows in float64, nan where one is masked.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        """The rows rounded to ``dtype``, on ``device``."""
        generator = torch.Generator().manual_seed(0)
        values = (torch.randn(ROWS, DIM, generator=generator) + 0.5).to(dtype)
        index = torch.arange(ROWS)
        mask = index % 7 != 3
        self.rows: Rows = as_rows(values.to(device), mask.to(device))
        self.groups: Tensor = (index % GROUPS)[None].to(device)
        units = torch.nn.functional.normalize(values.double(), dim=1)
        units[~mask] = torch.nan
        self.cosines = (units @ units.T).clamp(-1, 1)
        self._epsilon = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps

    @property
    def sum_error(self) -> float:
        """What rounding can do to a sum of as many products as there are rows, if all of it goes one way: ε/2 each.

        Products of 16-bit and float32 rows are summed in float32 over a few hundred rows, those of float64 in float64.
        """
        return ROWS * self._epsilon / 2

    @property
    def cosine_error(self) -> float:
        """The same of one cosine: a sum of as many products as a row has numbers, and a few roundings of unit rows."""
        return (DIM + 8) * self._epsilon / 2

    def part(self, start: int, stop: int) -> Rows:
        """Some of the rows."""
        mask = self.rows.mask
        assert mask is not None
        return Rows(self.rows.values[:, start:stop], mask[:, start:stop].contiguous())
