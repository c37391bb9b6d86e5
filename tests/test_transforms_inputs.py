"""What goes into transforms and comes out: kinds, dtypes, devices, shapes, masks, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import Tensor

from fastaniso import InvalidRowsError
from fastaniso.transforms import AllButTheTop, Center, DropDimensions, Standardize, Whiten

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TRANSFORMS = {
    "center": Center(),
    "standardize": Standardize(),
    "drop": DropDimensions(n_dimensions=2),
    "pca": Whiten(n_components=4),
    "zca": Whiten(method="zca", shrinkage=0.1),
    "all_but_the_top": AllButTheTop(n_components=2),
}
INVERTIBLE = ("center", "standardize", "pca", "zca")
every_transform = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
every_device = pytest.mark.parametrize("device", DEVICES)


def rows(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * torch.arange(1, shape[-1] + 1) + 1


def assert_close(a: Tensor, b: Tensor) -> None:
    """Alike but for float64 rounding: a matrix product rounds differently for another number of rows."""
    torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@every_device
@every_transform
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensor_comes_out_on_its_device_in_its_dtype_rounded_once(transform: Any, dtype: torch.dtype, device: str):
    x = rows(3, 7, 5).to(device, dtype)
    before = x.clone()
    fitted = clone(transform).fit(x)
    out = fitted.transform(x)
    assert out.shape[:-1] == (3, 7)
    assert out.dtype == dtype
    assert out.device == x.device
    assert torch.equal(x, before)
    exact = fitted.transform(x.double())
    assert torch.equal(out, exact.to(dtype))
    assert torch.equal(fitted.fit_transform(x), out)


@every_transform
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_an_array_comes_out_as_an_array(transform: Any, dtype: type) -> None:
    x = (10 * rows(50, 5)).numpy().astype(dtype)
    fitted = clone(transform).fit(x)
    out = fitted.transform(x)
    assert isinstance(out, np.ndarray)
    assert out.dtype == (np.float64 if dtype is np.int64 else dtype)
    exact = torch.from_numpy(x.astype(np.float64))
    np.testing.assert_array_equal(out, clone(transform).fit(exact).transform(exact).numpy().astype(out.dtype))
    if transform in [TRANSFORMS[name] for name in INVERTIBLE]:
        assert fitted.inverse_transform(out).dtype == out.dtype


@every_transform
def test_strides_do_not_matter(transform: Any) -> None:
    x = rows(40, 5).numpy()
    expected = clone(transform).fit(x).transform(x)
    wide = np.zeros((80, 9))
    wide[::2, 2:7] = x
    read_only = x.copy()
    read_only.setflags(write=False)
    for same in (np.asfortranarray(x), wide[::2, 2:7], x[::-1][::-1], x[:, ::-1].copy()[:, ::-1], read_only):
        np.testing.assert_array_equal(clone(transform).fit(same).transform(same), expected)
    sliced = torch.zeros(8, 6, 5, dtype=torch.float64)
    sliced[:, 1:] = torch.from_numpy(x).view(8, 5, 5)
    out = clone(transform).fit(sliced[:, 1:]).transform(sliced[:, 1:])
    np.testing.assert_array_equal(out.reshape(40, -1).numpy(), expected)


@every_transform
def test_many_blocks_are_one(transform: Any) -> None:
    x = rows(70_000, 5)
    fitted = clone(transform).fit(x)
    assert_close(fitted.transform(x)[-9:], fitted.transform(x[-9:]))
    if hasattr(fitted, "mean_"):
        np.testing.assert_allclose(fitted.mean_, x.mean(0), rtol=1e-11)


@every_transform
def test_masks_leave_rows_out_and_unchecked(transform: Any) -> None:
    x = rows(6, 10, 5)
    mask = torch.rand(6, 10, generator=torch.Generator().manual_seed(3)) > 0.4
    mask[0, 0] = False
    x[0, 0] = torch.nan
    expected = clone(transform).fit(x[mask])
    masked = clone(transform).fit(x, mask=mask)
    assert_close(masked.transform(x[mask]), expected.transform(x[mask]))
    assert_close(clone(transform).fit_transform(x, mask=mask)[mask], masked.transform(x[mask]))
    as_array = clone(transform).fit(x.view(60, 5).numpy(), mask=mask.view(60).numpy())
    np.testing.assert_array_equal(as_array.transform(rows(4, 5).numpy()), masked.transform(rows(4, 5)).numpy())
    with pytest.raises(InvalidRowsError, match=r"row 0 holds NaN or Inf \(1 such"):
        masked.transform(x)
    with pytest.raises(ValueError, match="at least one row that the mask keeps, got none"):
        clone(transform).fit(x, mask=torch.zeros_like(mask))
    nothing_yet = clone(transform).partial_fit(x, mask=torch.zeros_like(mask))
    after = nothing_yet.partial_fit(x, mask=mask).transform(x[mask])
    assert torch.equal(after, masked.transform(x[mask]))


@every_transform
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_are_refused_by_index(transform: Any, bad: float) -> None:
    x = rows(4, 20_000, 5).float()
    fitted = clone(transform).fit(x)
    before = fitted.transform(x[:1])
    x[2, 7, 3] = x[3, 1, 0] = bad
    for call in (clone(transform).fit, clone(transform).partial_fit, fitted.partial_fit, fitted.transform):
        with pytest.raises(InvalidRowsError, match=r"X: row 40007 holds NaN or Inf \(2 such row"):
            call(x)
    assert torch.equal(fitted.transform(x[:1]), before)


def test_large_numbers_are_no_infinities() -> None:
    x = rows(30, 4) * 1e150
    assert Center().fit_transform(x).isfinite().all()
    assert Center().fit(x).transform(x.sign() * 1.7e308).isfinite().all()
    with pytest.raises(ValueError, match="squares of its numbers leave float64"):
        Whiten().fit(x * 1e50)
    assert (Whiten().fit_transform(x / 1e300).var(0, correction=0) - 1).abs().max() < 1e-10


@pytest.mark.parametrize("transform", [TRANSFORMS[n] for n in TRANSFORMS if n != "drop"])
def test_gradients_flow_to_the_rows(transform: Any) -> None:
    x = rows(3, 4, 5).requires_grad_()
    fitted = clone(transform).fit(x)
    assert torch.autograd.gradcheck(fitted.transform, (x,))
    assert torch.autograd.gradcheck(fitted.transform, (rows(4, 3, 5).requires_grad_().transpose(0, 1),))
    assert not fitted.transform(x.detach()).requires_grad


def test_no_rows_in_no_rows_out() -> None:
    fitted = Whiten(n_components=2).fit(rows(9, 4))
    assert fitted.transform(torch.empty(3, 0, 4)).shape == (3, 0, 2)
    assert fitted.inverse_transform(torch.empty(0, 2)).shape == (0, 4)


def test_what_was_fitted_does_not_change_with_the_rows() -> None:
    x = rows(20, 4)
    center = Center().fit(x)
    mean = center.mean_.copy()
    x.zero_()
    np.testing.assert_array_equal(center.partial_fit(rows(20, 4)).mean_, mean)
