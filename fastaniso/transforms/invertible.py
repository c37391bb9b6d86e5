"""What transforms that can be undone share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastaniso.rows import as_rows
from fastaniso.transforms.base import RowTransform, on_device
from fastaniso.transforms.inputs import FLOATS, mapped, readable
from fastaniso.transforms.scikit_learn import check_array, check_is_fitted


class InvertibleRowTransform(RowTransform):
    """A transform that can be undone."""

    def inverse_transform(self, X: Any, *, mask: Any = None) -> Any:
        """Rows that ``transform`` made, back again; kinds, dtypes, devices and ``mask`` as there."""
        check_is_fitted(self)
        if not isinstance(X, Tensor):
            X = readable(check_array(X, dtype=FLOATS, ensure_all_finite=False, input_name="X", estimator=self))
        rows = as_rows(X, mask, name="X")
        if rows.dim != self._width:
            raise ValueError(f"X: expected rows of {self._width} numbers, as transform makes them, got {rows.dim}")
        solution = on_device(self._solved, rows.values.device)
        return mapped(X, rows, int(self.n_features_in_), lambda block: self._backward(solution, block))

    def _backward(self, solution: Any, rows: Tensor) -> Tensor:
        """Float64 rows (m, width), which it may write to, to float64 rows (m, d)."""
        raise NotImplementedError
