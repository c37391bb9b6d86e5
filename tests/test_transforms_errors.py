"""What transforms refuse, and that the error names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastaniso import Accumulator, CorruptStateError, InvalidRowsError, Moments
from fastaniso.transforms import AllButTheTop, Center, DropDimensions, Standardize, Whiten


def rows(n: int, dim: int = 4) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


def state(x: Tensor, gram: bool | str = False) -> Any:
    return Accumulator(gram=gram).update(x).state


def fit(transform: Any, x: Tensor | None = None, **options: Any) -> Callable[[], Any]:
    return lambda: transform.fit(rows(5) if x is None else x, **options)


def fit_state(transform: Any, *given: Any) -> Callable[[], Any]:
    return lambda: transform.fit_state(*given)


SAVED = Whiten().fit(rows(9)).state_dict()


def load(kind: Any, **changes: Any) -> Callable[[], Any]:
    return lambda: kind.from_state_dict({**SAVED, **changes})


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "integers": (fit(Center(), torch.ones(3, 2, dtype=torch.int64)), TypeError, r"X: expected float32.*X\.float\(\)"),
    "one_axis": (fit(Center(), torch.ones(3)), ValueError, r"X: expected \[..., d\]"),
    "width": (lambda: Center().fit(rows(5)).transform(rows(5, 3)), ValueError, "3 features, but Center is expecting 4"),
    "width_back": (
        *(lambda: Whiten(n_components=2).fit(rows(5)).inverse_transform(rows(5)), ValueError),
        "X: expected rows of 2 numbers, as transform makes them, got 4",
    ),
    "mask": (fit(Center(), mask=torch.ones(5)), TypeError, "mask: expected bool"),
    "method": (fit(Whiten(method="pcr")), ValueError, "method: expected 'pca' or 'zca', got 'pcr'"),
    "shrinkage": (fit(Whiten(shrinkage=1.5)), ValueError, r"shrinkage: expected a number from 0 to 1, got 1\.5"),
    "eps": (fit(Whiten(eps=-1e-9)), ValueError, "eps: expected a number from 0, below 1, got -1e-09"),
    "many_components": (fit(Whiten(n_components=5)), ValueError, "n_components: .* from 1 to the 4 dim.* got 5"),
    "no_component": (fit(Whiten(n_components=0)), ValueError, "n_components: .* from 1 to the 4 dim.* got 0"),
    "bool_components": (fit(AllButTheTop(n_components=True)), ValueError, "n_components: .* from 0 .* got True"),
    "all_dimensions": (fit(DropDimensions(n_dimensions=4)), ValueError, "n_dimensions: .* from 0 to 3, .* got 4"),
    "both": (fit(DropDimensions(n_dimensions=1, dimensions=[0])), ValueError, "exclude each other; pass one"),
    "outside": (fit(DropDimensions(dimensions=[4])), ValueError, r"dimensions: expected ints from 0 to 3, got \[4\]"),
    "twice": (fit(DropDimensions(dimensions=[1, 1])), ValueError, "dimensions: expected each dimension once"),
    "none_left": (fit(DropDimensions(dimensions=[2, 0, 1, 3])), ValueError, r"4 feature\(s\).*leave at least one"),
    "one_row": (fit(DropDimensions(), rows(1)), ValueError, "at least two rows that are not zero .* got 1"),
    "no_row": (fit(Center(), rows(0)), ValueError, r"X: expected at least one row, got none in shape \(0, 4\)"),
    "linear_state": (
        *(fit_state(Whiten(), state(rows(5))), TypeError),
        "Whiten is fitted from a Gram with the scatter of the rows, got Moments",
    ),
    "no_state": (fit_state(Center(), rows(5)), TypeError, "fitted from a Moments or a Gram, got Tensor"),
    "unit_state": (
        *(fit_state(AllButTheTop(), state(rows(5), "unit")), ValueError),
        "state: the Gram holds no scatter of the rows; make it with raw=True",
    ),
    "state_of_nothing": (fit_state(Center(), Moments.empty(4)), ValueError, "state: it has seen no row"),
    "state_without_rows": (
        *(fit_state(Center(), state(rows(5).index_fill(0, torch.tensor([1]), torch.nan))), InvalidRowsError),
        r"state: 1 row\(s\) with NaN or Inf were left out of it; pass invalid='omit'",
    ),
    "lost_variance": (
        *(fit_state(Standardize(), state(rows(50).float() + 1e5)), ValueError),
        r"state: the variance of 4 dimension\(s\), first 0, is lost .*gram='raw'",
    ),
    "another_kind": (load(Center), CorruptStateError, "state_dict of a Center in format 1, got kind 'Whiten'"),
    "another_version": (load(Whiten, version=2), CorruptStateError, "version 2"),
    "parameters": (load(Whiten, parameters={"power": 2}), CorruptStateError, "incomplete state_dict.*power"),
    "origin": (load(Whiten, origin=torch.zeros(3)), CorruptStateError, "origin of shape .*3.* beside rows of 4"),
    "without_scatter": (load(Whiten, state=state(rows(5)).to_dict()), CorruptStateError, "got Moments"),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_errors_name_what_was_expected_and_what_came(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
