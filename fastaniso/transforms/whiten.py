"""Whitening: rows of identity covariance."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaniso.transforms.base import host
from fastaniso.transforms.invertible import InvertibleRowTransform
from fastaniso.transforms.principal import check_components, principal
from fastaniso.transforms.scikit_learn import OneToOneFeatureMixin
from fastaniso.transforms.sums import Sums

METHODS = ("pca", "zca")


class _Whitening(NamedTuple):
    mean: Tensor
    eigenvalues: Tensor
    components: Tensor
    matrix: Tensor
    inverse: Tensor


class Whiten(OneToOneFeatureMixin, InvertibleRowTransform):  # type: ignore[misc]  # scikit-learn has no types
    """W(x − x̄) with identity covariance over the n (not n−1) rows of ``fit``, zero rows included.

    With eigenvalues λ and unit eigenvectors V (one a row) of C_ζ = (1 − ζ)C + ζ·(tr C/d)·I, ζ the shrinkage:
    "pca": W = λ^(−1/2)V, the rows in the axes of the eigenvectors, k numbers. "zca": W = Vᵀλ^(−1/2)V, symmetric, the
    whitening closest to the rows themselves (Kessy, Lewin & Strimmer 2018), d numbers; rotating the rows rotates the
    outcome. With k < d only the k directions of largest λ are kept.

    A null direction, λ ≤ eps·λ₁, comes out zero rather than as amplified rounding: of n ≤ d rows there are d − n + 1 at
    least. Shrinkage leaves none, and is what to use for few rows a dimension; with it the covariance is the identity
    only where ζ = 0. From a state of 16- or 32-bit rows C is known to about 1e-7·√(C_ii·C_jj): raise eps to 1e-7 where
    such rows span less than d dimensions.

    Undone by ``inverse_transform``, but for what lay in directions that are null or not kept. One O(n d²) read, O(d²)
    memory, and an eigendecomposition in float64. Input, output, masks and errors as ``RowTransform`` says.

    Args:
        method: "pca" or "zca".
        n_components: k, from 1 to d. None: d.
        shrinkage: ζ, from 0 to 1.
        eps: Share of the largest eigenvalue up to which a direction is null, from 0, below 1.

    Attributes:
        mean_: x̄, float64 (d,).
        eigenvalues_: The k largest eigenvalues of C_ζ, float64 (k,).
        components_: Their unit eigenvectors, float64 (k, d); the entry of largest magnitude is positive.
        matrix_: W, float64 (k, d), or (d, d) of "zca".
        n_features_in_: d.
    """

    _scatter = True

    def __init__(
        self, *, method: str = "pca", n_components: int | None = None, shrinkage: float = 0.0, eps: float = 1e-12
    ) -> None:
        """Parameters are checked by ``fit``."""
        self.method = method
        self.n_components = n_components
        self.shrinkage = shrinkage
        self.eps = eps

    @property
    def mean_(self) -> NDArray[Any]:
        """x̄, float64 (d,)."""
        return host(self._solved.mean)

    @property
    def eigenvalues_(self) -> NDArray[Any]:
        """The k largest eigenvalues of C_ζ, float64 (k,)."""
        return host(self._solved.eigenvalues)

    @property
    def components_(self) -> NDArray[Any]:
        """Unit eigenvectors, float64 (k, d)."""
        return host(self._solved.components)

    @property
    def matrix_(self) -> NDArray[Any]:
        """W, float64 (k, d) or (d, d)."""
        return host(self._solved.matrix)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Of "zca" the names of the dimensions, of "pca" whiten0, whiten1, …."""
        names: NDArray[Any] = super().get_feature_names_out(input_features)
        return names if self.method == "zca" else numpy.array([f"whiten{k}" for k in range(self._width)], dtype=object)

    def _check_parameters(self, dim: int) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method: expected 'pca' or 'zca', got {self.method!r}")
        check_components(self.n_components, dim, at_least=1)
        if not isinstance(self.shrinkage, Real) or not 0 <= self.shrinkage <= 1:
            raise ValueError(f"shrinkage: expected a number from 0 to 1, got {self.shrinkage!r}")
        if not isinstance(self.eps, Real) or not 0 <= self.eps < 1:
            raise ValueError(f"eps: expected a number from 0, below 1, got {self.eps!r}")

    def _solve(self, sums: Sums) -> NamedTuple:
        eigenvalues, components = principal(sums)
        shrinkage = float(self.shrinkage)
        shrunk = (1 - shrinkage) * eigenvalues + shrinkage * eigenvalues.mean()
        kept = shrunk[: self.n_components, None]
        components = components[: self.n_components]
        null = kept <= float(self.eps) * shrunk[0]
        narrowed = components * torch.where(null, 0, kept.rsqrt())
        widened = components * torch.where(null, 0, kept.sqrt())
        if self.method == "zca":
            narrowed, widened = components.T @ narrowed, components.T @ widened
        return _Whitening(sums.mean, kept.flatten(), components, narrowed, widened.T)

    def _forward(self, solution: Any, rows: Tensor) -> Tensor:
        white: Tensor = rows.sub_(solution.mean) @ solution.matrix.T
        return white

    def _backward(self, solution: Any, rows: Tensor) -> Tensor:
        back: Tensor = rows @ solution.inverse.T
        return back.add_(solution.mean)

    @property
    def _width(self) -> int:
        return len(self._solved.matrix)
