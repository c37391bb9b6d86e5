"""Centring: x − x̄."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from fastaniso.transforms.base import host
from fastaniso.transforms.invertible import InvertibleRowTransform
from fastaniso.transforms.scikit_learn import OneToOneFeatureMixin
from fastaniso.transforms.sums import Sums


class _Mean(NamedTuple):
    mean: Tensor


class Center(OneToOneFeatureMixin, InvertibleRowTransform):  # type: ignore[misc]  # scikit-learn has no types
    """x − x̄, x̄ the mean of the rows of ``fit``, zero rows included; one O(n d) read, O(d) memory.

    Undone by ``inverse_transform``. Input, output, masks and errors as ``RowTransform`` says; the mean is subtracted in
    float64, so that float32 rows around 1000 lose nothing but what they came without.

    Attributes:
        mean_: x̄, float64 (d,).
        n_features_in_: d.
    """

    @property
    def mean_(self) -> NDArray[Any]:
        """x̄, float64 (d,)."""
        return host(self._solved.mean)

    def _solve(self, sums: Sums) -> NamedTuple:
        return _Mean(sums.mean)

    def _forward(self, solution: Any, rows: Tensor) -> Tensor:
        return rows.sub_(solution.mean)

    def _backward(self, solution: Any, rows: Tensor) -> Tensor:
        return rows.add_(solution.mean)
