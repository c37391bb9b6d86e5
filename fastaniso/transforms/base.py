"""What all transforms share: fitting on rows or on a state, batch by batch, and applying to tensors and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaniso.rows import Rows, as_rows
from fastaniso.state import CorruptStateError, Gram, Moments
from fastaniso.statistics.host import InvalidRowsError, check_invalid_option
from fastaniso.transforms.inputs import FLOATS, mapped, readable, refuse_nonfinite
from fastaniso.transforms.scikit_learn import BaseEstimator, TransformerMixin, check_is_fitted, validate_data
from fastaniso.transforms.sums import Sums, first_row

FORMAT_VERSION = 1


class RowTransform(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A scikit-learn transformer of rows, fitted from a ``Moments`` or a ``Gram``.

    ``X`` is a tensor ``[..., d]`` on any device, or whatever scikit-learn takes as an array (n, d); what comes out is
    of the same kind, device and dtype (float16, bfloat16, float32, float64; integers in arrays become float64).
    Everything is computed in float64 from the rows as they are, a block at a time, and rounded at the end; beside the
    output nothing is copied but arrays in Fortran order. Fitted attributes are float64 arrays.

    Rows with NaN or Inf are refused, unless ``mask`` leaves them out. Zero rows are rows.
    """

    _scatter: ClassVar[bool] = False  # whether fitting needs the covariance of the rows
    _about_a_row: ClassVar[bool] = True  # whether the sums may be about an origin other than zero
    _sums: Sums
    _solution: Any

    def fit(self, X: Any, y: Any = None, *, mask: Any = None) -> Self:
        """Fit on rows ``X`` and forget all before; ``mask`` (bool, ``[...]``) keeps a row where True.

        Raises ``ValueError`` without a row, ``InvalidRowsError`` on NaN or Inf.
        """
        sums = self._read_sums(X, mask, None)
        if sums is None:
            kept = "" if mask is None else " that the mask keeps"
            raise ValueError(f"X: expected at least one row{kept}, got none in shape {tuple(X.shape)}")
        return self._take(sums, self._solve(sums))

    def partial_fit(self, X: Any, y: Any = None, *, mask: Any = None) -> Self:
        """Fit on rows ``X`` and those before: batches give what ``fit`` gives on all rows, up to float64 rounding.

        The sums move to the device of ``X``; parameters and fitted attributes are worked out when next needed.
        """
        before: Sums | None = getattr(self, "_sums", None)
        sums = self._read_sums(X, mask, before)
        if sums is None:
            return self
        return self._take(sums if before is None else before.to(sums.origin.device).merge(sums), None)

    def fit_state(self, state: Moments | Gram, *, invalid: str = "raise") -> Self:
        """Fit on the rows that a state has seen, such as a scan saved: ``fit_state(load_state(path))``.

        Zero rows that the state left out count as rows; rows with NaN or Inf raise ``InvalidRowsError``, or stay left
        out with ``invalid="omit"``. ``partial_fit`` may follow.
        """
        check_invalid_option(invalid)
        sums = Sums.of_state(self._usable(state))
        if invalid == "raise" and sums.nonfinite:
            raise InvalidRowsError(
                f"state: {sums.nonfinite} row(s) with NaN or Inf were left out of it; pass invalid='omit' to fit on "
                "the others"
            )
        if not sums.n:
            raise ValueError("state: it has seen no row; fit needs at least one")
        self.n_features_in_ = state.dim
        self.__dict__.pop("feature_names_in_", None)
        return self._take(sums, self._solve(sums))

    @classmethod
    def from_state(cls, state: Moments | Gram, *, invalid: str = "raise", **parameters: Any) -> Self:
        """``cls(**parameters).fit_state(state)``."""
        return cls(**parameters).fit_state(state, invalid=invalid)

    def transform(self, X: Any, *, mask: Any = None) -> Any:
        """The transformed rows, in the kind, dtype and device of ``X``; gradients flow to a tensor that asks for them.

        Rows that ``mask`` leaves out may hold anything; they are transformed like the others, but not checked.
        """
        check_is_fitted(self)
        X, rows = self._read(X, mask, reset=False)
        solution = on_device(self._solved, rows.values.device)
        return mapped(X, rows, self._width, lambda block: self._forward(solution, block))

    def fit_transform(self, X: Any, y: Any = None, *, mask: Any = None) -> Any:
        """``fit(X, mask=mask).transform(X, mask=mask)``."""
        return self.fit(X, mask=mask).transform(X, mask=mask)

    def state_dict(self) -> dict[str, Any]:
        """Plain dict of tensors, numbers and strings, which ``torch.load(..., weights_only=True)`` reads back."""
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        return {
            "kind": type(self).__name__,
            "version": FORMAT_VERSION,
            "parameters": {k: v.tolist() if hasattr(v, "tolist") else v for k, v in self.get_params().items()},
            "feature_names": None if names is None else names.tolist(),
            "origin": self._sums.origin,
            "state": self._sums.state.to_dict(),
        }

    @classmethod
    def from_state_dict(cls, content: Mapping[str, Any]) -> Self:
        """The fitted transform that ``state_dict`` described; raises ``CorruptStateError`` on anything else."""
        if content.get("kind") != cls.__name__ or content.get("version") != FORMAT_VERSION:
            raise CorruptStateError(
                f"expected the state_dict of a {cls.__name__} in format {FORMAT_VERSION}, "
                f"got kind {content.get('kind')!r}, version {content.get('version')!r}"
            )
        try:
            transform, names = cls(**content["parameters"]), content["feature_names"]
            kind = Gram if content["state"].get("kind") == "Gram" else Moments
            sums = Sums(transform._usable(kind.from_dict(content["state"])), content["origin"])
            if sums.origin.shape != sums.state.sums[0].shape:
                raise TypeError(f"origin of shape {tuple(sums.origin.shape)} beside rows of {sums.state.dim} numbers")
        except (KeyError, TypeError, AttributeError) as error:
            raise CorruptStateError(f"incomplete state_dict: {error!r}") from error
        transform.n_features_in_ = sums.state.dim
        if names is not None:
            transform.feature_names_in_ = numpy.asarray(names, dtype=object)
        return transform._take(sums, None)

    def __getstate__(self) -> dict[str, Any]:
        """Pickled with the sums on the CPU, so that a machine without the device reads it."""
        content = dict(super().__getstate__())
        if "_sums" in content:
            content["_sums"] = self._sums.to("cpu")
        return content

    def __sklearn_is_fitted__(self) -> bool:
        """Whether any rows have been seen."""
        return hasattr(self, "_sums")

    def __sklearn_tags__(self) -> Any:
        """Dtypes that come out as they went in."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = [numpy.dtype(dtype).name for dtype in FLOATS]
        return tags

    @property
    def _solved(self) -> Any:
        """What ``_solve`` made of the sums: tensors on the CPU."""
        check_is_fitted(self)
        if self._solution is None:
            self._solution = on_device(self._solve(self._sums), "cpu")
        return self._solution

    @property
    def _width(self) -> int:
        """Numbers in a row that comes out."""
        return int(self.n_features_in_)

    def _solve(self, sums: Sums) -> NamedTuple:
        """The tensors that ``_forward`` needs."""
        raise NotImplementedError

    def _forward(self, solution: Any, rows: Tensor) -> Tensor:
        """Float64 rows (m, d), which it may write to, to float64 rows (m, width)."""
        raise NotImplementedError

    def _check_parameters(self, dim: int) -> None:
        """Raise ``ValueError`` for parameters that do not fit rows of ``dim`` numbers."""

    def _take(self, sums: Sums, solution: Any) -> Self:
        self._sums, self._solution = sums, None if solution is None else on_device(solution, "cpu")
        return self

    def _read(self, X: Any, mask: Any, *, reset: bool) -> tuple[Any, Rows]:
        """X as validated, and its rows; ``reset`` takes d and the feature names from X, else they must fit."""
        if isinstance(X, Tensor):
            rows = as_rows(X, mask, name="X")
            # Checks only the number of features, on rows of two axes.
            validate_data(self, rows.values[0], skip_check_array=True, reset=reset)
            return X, rows
        X = readable(validate_data(self, X, dtype=FLOATS, ensure_all_finite=False, reset=reset))
        return X, as_rows(X, mask, name="X")

    def _read_sums(self, X: Any, mask: Any, before: Sums | None) -> Sums | None:
        """The sums of X in the kind and about the origin of those before; None if the mask keeps no row."""
        _, rows = self._read(X, mask, reset=before is None)
        self._check_parameters(rows.dim)
        if not rows.count:
            return None
        if before is not None:
            origin, scatter = before.origin.to(rows.values.device), isinstance(before.state, Gram)
        else:
            row = first_row(rows)
            origin, scatter = row if self._about_a_row else torch.zeros_like(row), self._scatter
        sums = Sums.of_rows(rows, origin, scatter=scatter)
        if sums.nonfinite or not sums.finite:
            refuse_nonfinite(rows)
            raise ValueError("X: the squares of its numbers leave float64; divide the rows by a constant first")
        return sums if sums.n else None

    def _usable(self, state: Moments | Gram) -> Moments | Gram:
        """What of ``state`` is needed."""
        kind = "a Gram with the scatter of the rows" if self._scatter else "a Moments or a Gram"
        if not isinstance(state, Gram if self._scatter else (Moments, Gram)):
            raise TypeError(f"state: {type(self).__name__} is fitted from {kind}, got {type(state).__name__}")
        self._check_parameters(state.dim)
        if isinstance(state, Moments):
            return state
        if state.scatter is None:
            if self._scatter:
                raise ValueError("state: the Gram holds no scatter of the rows; make it with raw=True (gram='raw')")
            return state.moments
        return Gram.of(state.moments, state.scatter, None)


def on_device(solution: Any, device: torch.device | str) -> Any:
    """The tensors of a solution on a device; where they are there already, themselves."""
    return type(solution)(*(tensor.to(device) for tensor in solution))


def host(tensor: Tensor) -> NDArray[Any]:
    """A fitted attribute."""
    array: NDArray[Any] = tensor.numpy()
    return array
