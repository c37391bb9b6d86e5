"""All-but-the-top: rows without their mean and their top directions."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from fastaniso.transforms.base import RowTransform, host
from fastaniso.transforms.principal import check_components, principal
from fastaniso.transforms.scikit_learn import OneToOneFeatureMixin
from fastaniso.transforms.sums import Sums


class _Top(NamedTuple):
    mean: Tensor
    eigenvalues: Tensor
    components: Tensor


class AllButTheTop(OneToOneFeatureMixin, RowTransform):  # type: ignore[misc]  # scikit-learn has no types
    """(x − x̄) − VᵀV(x − x̄), V the top D principal directions of the centred rows of ``fit``, zero rows included.

    All-but-the-Top (Mu & Viswanath 2018), projecting *centred* rows, so that what comes out has mean zero and nothing
    left along V. The common recipe subtracts VᵀVx of the *uncentred* row, and so adds the constant −VᵀVx̄ to every row:
    a drift along the directions that were to go, which cosines see. It is
    ``transform(x) - mean_ @ components_.T @ components_``.

    The width stays d. One O(n d²) read, O(d²) memory, and an eigendecomposition in float64. Input, output, masks and
    errors as ``RowTransform`` says.

    Args:
        n_components: D, from 0 to d. None: d/100 as in the paper, rounded, at least 1.

    Attributes:
        mean_: x̄, float64 (d,).
        eigenvalues_: The D largest eigenvalues of the covariance over n (not n−1), float64 (D,).
        components_: V, float64 (D, d), one unit eigenvector a row; the entry of largest magnitude is positive.
        n_features_in_: d.
    """

    _scatter = True

    def __init__(self, *, n_components: int | None = None) -> None:
        """Parameters are checked by ``fit``."""
        self.n_components = n_components

    @property
    def mean_(self) -> NDArray[Any]:
        """x̄, float64 (d,)."""
        return host(self._solved.mean)

    @property
    def eigenvalues_(self) -> NDArray[Any]:
        """The D largest eigenvalues of the covariance, float64 (D,)."""
        return host(self._solved.eigenvalues)

    @property
    def components_(self) -> NDArray[Any]:
        """V, float64 (D, d)."""
        return host(self._solved.components)

    def _check_parameters(self, dim: int) -> None:
        check_components(self.n_components, dim, at_least=0)

    def _solve(self, sums: Sums) -> NamedTuple:
        top = max(round(sums.state.dim / 100), 1) if self.n_components is None else self.n_components
        eigenvalues, components = principal(sums)
        return _Top(sums.mean, eigenvalues[:top], components[:top])

    def _forward(self, solution: Any, rows: Tensor) -> Tensor:
        centred = rows.sub_(solution.mean)
        return centred.sub_(centred @ solution.components.T @ solution.components)
