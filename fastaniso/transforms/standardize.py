"""Standardising: (x − x̄)/s by dimension."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaniso.state import Gram
from fastaniso.transforms.base import host
from fastaniso.transforms.invertible import InvertibleRowTransform
from fastaniso.transforms.scikit_learn import OneToOneFeatureMixin
from fastaniso.transforms.sums import Sums

# A variance below this many roundings of the mean square has fewer than two digits left once the squared mean is
# taken away: 64 · 1.2e-7 of float32 sums, a mean of 360 standard deviations.
_ROUNDINGS = 64


class _Scale(NamedTuple):
    mean: Tensor
    variance: Tensor
    scale: Tensor


class Standardize(OneToOneFeatureMixin, InvertibleRowTransform):  # type: ignore[misc]  # scikit-learn has no types
    """(x − x̄)/s by dimension, s the standard deviation over n (not n−1) of the rows of ``fit``, zero rows included.

    A dimension that does not vary has a scale of 1 and comes out zero. One O(n d) read, O(d) memory; the variance is
    taken about a row of the data in float64, so that a mean far from zero costs no digits. Undone by
    ``inverse_transform``. Input, output, masks and errors as ``RowTransform`` says.

    ``fit_state`` of a ``Gram`` is as exact as the Gram; a ``Moments`` knows Σx² about zero only, and one from 16- or
    32-bit rows is refused where a mean is beyond 360 standard deviations (``ValueError``).

    Attributes:
        mean_: x̄, float64 (d,).
        var_: s², float64 (d,).
        scale_: s, or 1 where a dimension does not vary, float64 (d,).
        n_features_in_: d.
    """

    @property
    def mean_(self) -> NDArray[Any]:
        """x̄, float64 (d,)."""
        return host(self._solved.mean)

    @property
    def var_(self) -> NDArray[Any]:
        """s², over n, float64 (d,)."""
        return host(self._solved.variance)

    @property
    def scale_(self) -> NDArray[Any]:
        """s, or 1 where a dimension does not vary, float64 (d,)."""
        return host(self._solved.scale)

    def _solve(self, sums: Sums) -> NamedTuple:
        mean, variance = sums.mean, sums.variance
        if not isinstance(sums.state, Gram):
            # Sums about a row of the data never come here: that row alone makes the variance mean square/(n + 1).
            unknown = (variance < _ROUNDINGS * sums.rounding * sums.mean_square).nonzero().flatten()
            if len(unknown):
                raise ValueError(
                    f"state: the variance of {len(unknown)} dimension(s), first {int(unknown[0])}, is lost in the "
                    "rounding of Σx²; fit on the rows, or from their Gram (Accumulator(gram='raw'))"
                )
        # A spread of some roundings of the mean is what summing makes of a constant.
        varies = variance > (4 * sums.rounding * mean).square()
        return _Scale(mean, variance, torch.where(varies, variance, 1).sqrt())

    def _forward(self, solution: Any, rows: Tensor) -> Tensor:
        return rows.sub_(solution.mean).div_(solution.scale)

    def _backward(self, solution: Any, rows: Tensor) -> Tensor:
        return rows.mul_(solution.scale).add_(solution.mean)
