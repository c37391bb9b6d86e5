"""Laws that hold for any rows: batches and states give one fit, rotations turn the outcome, inverses undo."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from torch import Tensor

from fastaniso import Accumulator, load_state, save_state
from fastaniso.transforms import AllButTheTop, Center, DropDimensions, Standardize, Whiten

law = settings(max_examples=25, deadline=None)

# Of each what does not hang on the sign of an eigenvector or on which of two like eigenvalues comes first.
TRANSFORMS: dict[str, Any] = {
    "center": Center(),
    "standardize": Standardize(),
    "drop": DropDimensions(n_dimensions=1),
    "zca": Whiten(method="zca", shrinkage=0.05),
    "all_but_the_top": AllButTheTop(n_components=1),
}
every_transform = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)


@st.composite
def uneven_rows(draw: st.DrawFn, *, smallest: int = 12) -> Tensor:
    """Float64 rows whose directions spread by at least a factor of two from one to the next, some of them zero."""
    n, d = draw(st.integers(smallest, 40)), draw(st.integers(2, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x, _ = torch.linalg.qr(torch.randn(n, d, dtype=torch.float64, generator=generator))
    turned, _ = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))
    x = x * 2.0 ** torch.arange(d) @ turned + draw(st.sampled_from([0.0, 0.5, 100.0]))
    x[draw(st.lists(st.integers(0, n - 1), max_size=2))] = 0
    return x


@st.composite
def cuts(draw: st.DrawFn, n: int) -> list[int]:
    inner = draw(st.lists(st.integers(1, n - 1), max_size=4, unique=True))
    return [0, *sorted(inner), n]


def assert_close(a: Any, b: Any, scale: float = 1.0) -> None:
    """Float64 rounding of some hundred operations on numbers up to ``scale``."""
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-10 * max(scale, 1.0))


@pytest.mark.parametrize("name", TRANSFORMS)
@law
@given(st.data())
def test_batches_give_what_all_rows_give(name: str, data: st.DataObject) -> None:
    x = data.draw(uneven_rows())
    edges = data.draw(cuts(len(x)))
    batches = [x[start:stop] for start, stop in itertools.pairwise(edges)]
    whole, parts = clone(TRANSFORMS[name]).fit(x), clone(TRANSFORMS[name])
    for batch in batches:
        parts.partial_fit(batch)
    assert_close(parts.transform(x), whole.transform(x), float(x.abs().max()))
    for batch in reversed(batches):
        whole.partial_fit(batch)
        parts.partial_fit(batch)
    assert_close(parts.transform(x), whole.transform(x), float(x.abs().max()))


@pytest.mark.parametrize("name", TRANSFORMS)
@law
@given(uneven_rows())
def test_a_state_gives_what_its_rows_give(name: str, x: Tensor) -> None:
    transform = TRANSFORMS[name]
    accumulator = Accumulator(gram=True, invalid="omit").update(x[:5]).update(x[5:])
    fitted = type(transform).from_state(accumulator.state, **transform.get_params())
    assert fitted.n_features_in_ == x.shape[1]
    scale = float(x.abs().max())
    assert_close(fitted.transform(x), clone(transform).fit(x).transform(x), scale)
    more = x.flip(0) * 2
    fitted.partial_fit(more)
    assert_close(fitted.transform(x), clone(transform).fit(torch.cat((x, more))).transform(x), scale)


@law
@given(uneven_rows(), st.integers(0, 2**32), st.sampled_from([0.0, 0.4]))
def test_rotating_the_rows_rotates_what_comes_out(x: Tensor, seed: int, shrinkage: float) -> None:
    d = x.shape[1]
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))
    scale = float(x.abs().max())
    for transform in (Center(), AllButTheTop(n_components=1), Whiten(method="zca", shrinkage=shrinkage)):
        out, turned = clone(transform).fit_transform(x), clone(transform).fit_transform(x @ rotation)
        assert_close(turned, out @ rotation, scale**2)
    pca = Whiten(shrinkage=shrinkage)
    # In its own axes a whitened row stays where it was, but for the sign of each axis.
    assert_close(clone(pca).fit_transform(x @ rotation).abs(), clone(pca).fit_transform(x).abs(), scale**2)


@law
@given(uneven_rows(), st.floats(1e-3, 1e3), st.floats(-50, 50))
def test_scale_and_shift_leave_whitened_and_standardized_rows(x: Tensor, factor: float, shift: float) -> None:
    scale = float(x.abs().max()) + abs(shift / factor)
    for transform in (Standardize(), Whiten(method="zca"), Whiten(method="zca", shrinkage=0.3)):
        assert_close(clone(transform).fit_transform(x * factor + shift), clone(transform).fit_transform(x), scale**2)


@law
@given(uneven_rows(), st.sampled_from(["pca", "zca"]), st.sampled_from([0.0, 0.5]))
def test_inverses_undo(x: Tensor, method: str, shrinkage: float) -> None:
    scale = float(x.abs().max())
    for transform in (Center(), Standardize(), Whiten(method=method, shrinkage=shrinkage)):
        assert_close(transform.inverse_transform(transform.fit_transform(x)), x, scale)
        assert_close(transform.transform(transform.inverse_transform(x)), x, scale)


@law
@given(uneven_rows(), st.sampled_from(["pca", "zca"]))
def test_the_inverse_of_fewer_components_is_the_closest_of_that_rank(x: Tensor, method: str) -> None:
    k = x.shape[1] - 1
    whiten = Whiten(method=method, n_components=k)
    back = whiten.inverse_transform(whiten.fit_transform(x))
    centred = x - x.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    closest = centred @ directions[:k].T @ directions[:k] + x.mean(0)
    assert_close(back, closest, float(x.abs().max()))


@every_transform
def test_a_saved_state_and_a_saved_transform_come_back(transform: Any, tmp_path: Path) -> None:
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    save_state(Accumulator(gram="raw").update(x).state, tmp_path / "rows.safetensors")
    fitted = clone(transform).fit_state(load_state(tmp_path / "rows.safetensors"))
    file = io.BytesIO()
    torch.save(fitted.state_dict(), file)
    file.seek(0)
    again = type(transform).from_state_dict(torch.load(file, weights_only=True))
    assert again.get_params() == transform.get_params()
    assert torch.equal(again.transform(x), fitted.transform(x))
    assert torch.equal(again.partial_fit(x[:9] + 1).transform(x), fitted.partial_fit(x[:9] + 1).transform(x))


def test_a_saved_transform_keeps_the_names_and_the_origin() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).normal(1e6, 1, (30, 3)), columns=["a", "b", "c"])
    fitted = Standardize().fit(frame)
    again = Standardize.from_state_dict(fitted.state_dict())
    assert again.get_feature_names_out().tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(again.partial_fit(frame).scale_, fitted.partial_fit(frame).scale_)
