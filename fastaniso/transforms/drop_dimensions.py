"""Dropping the dimensions that carry the mean cosine."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaniso.statistics import cosine
from fastaniso.transforms.base import RowTransform, host
from fastaniso.transforms.scikit_learn import OneToOneFeatureMixin
from fastaniso.transforms.sums import Sums

_DEFAULT = 3


class _Dropped(NamedTuple):
    contributions: Tensor
    dropped: Tensor
    kept: Tensor


class DropDimensions(OneToOneFeatureMixin, RowTransform):  # type: ignore[misc]  # scikit-learn has no types
    """Without the k dimensions that contribute most to the mean cosine over the n(n−1) ordered pairs i ≠ j.

    Contributions are (s_k² − Σu_k²)/(n(n−1)) with u = x/‖x‖ and s = Σu, norms those of the full rows (Timkey & van
    Schijndel 2021, exact where the paper samples); zero rows have no direction and take no part. One O(n d) read, O(d)
    memory. The other dimensions come out in order and untouched; dropped ones do not come back. Input, output, masks
    and errors as ``RowTransform`` says.

    Args:
        n_dimensions: k, below d. None: 3, or d//2 where that is less.
        dimensions: Drop these (from 0) and not those that contribute most.

    Attributes:
        dimensions_: The dropped dimensions, int64 (k,), largest contribution first.
        contributions_: The contribution of each dimension, float64 (d,); nan when n < 2.
        n_features_in_: d.
    """

    _about_a_row = False

    def __init__(self, *, n_dimensions: int | None = None, dimensions: Sequence[int] | None = None) -> None:
        """Parameters are checked by ``fit``."""
        self.n_dimensions = n_dimensions
        self.dimensions = dimensions

    @property
    def dimensions_(self) -> NDArray[Any]:
        """The dropped dimensions, int64 (k,), largest contribution first."""
        return host(self._solved.dropped)

    @property
    def contributions_(self) -> NDArray[Any]:
        """Contribution of each dimension to the mean cosine, float64 (d,)."""
        return host(self._solved.contributions)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """The names of the dimensions that are left."""
        names: NDArray[Any] = super().get_feature_names_out(input_features)[host(self._solved.kept)]
        return names

    def _check_parameters(self, dim: int) -> None:
        k, chosen = self.n_dimensions, self.dimensions
        if k is not None and chosen is not None:
            raise ValueError(f"n_dimensions: {k} and dimensions={chosen!r} exclude each other; pass one of them")
        if k is not None and (isinstance(k, bool) or not isinstance(k, Integral) or not 0 <= k < dim):
            raise ValueError(f"n_dimensions: expected an int from 0 to {dim - 1}, below the {dim} there are, got {k!r}")
        if chosen is None:
            return
        if not all(isinstance(k, Integral) and not isinstance(k, bool) and 0 <= k < dim for k in chosen):
            raise ValueError(f"dimensions: expected ints from 0 to {dim - 1}, got {chosen!r}")
        if len(set(chosen)) != len(chosen):
            raise ValueError(f"dimensions: expected each dimension once, got {chosen!r}")
        if len(chosen) == dim:
            raise ValueError(f"dimensions: X has {dim} feature(s), all of them to be dropped; leave at least one")

    def _solve(self, sums: Sums) -> NamedTuple:
        contributions = cosine.contributions(sums.state)
        if self.dimensions is not None:
            chosen = torch.tensor(list(self.dimensions), dtype=torch.int64, device=contributions.device)
            dropped = chosen[contributions[chosen].argsort(descending=True, stable=True)]
        else:
            rows = int(sums.state.counts[0])
            if rows < 2:
                raise ValueError(
                    f"X: expected at least two rows that are not zero to take cosines of, got {rows} sample(s) "
                    "(n_samples = 1 is too few); pass more rows, or the dimensions to drop"
                )
            k = min(_DEFAULT, sums.state.dim // 2) if self.n_dimensions is None else int(self.n_dimensions)
            dropped = contributions.argsort(descending=True, stable=True)[:k]
        left = torch.ones(sums.state.dim, dtype=torch.bool, device=dropped.device)
        left[dropped] = False
        return _Dropped(contributions, dropped, left.nonzero().flatten())

    def _forward(self, solution: Any, rows: Tensor) -> Tensor:
        return rows[:, solution.kept]

    @property
    def _width(self) -> int:
        return len(self._solved.kept)
