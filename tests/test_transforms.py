"""What transforms compute: closed forms, exactness far from zero, zero rows, null directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import fastaniso
from fastaniso.transforms import AllButTheTop, Center, DropDimensions, Standardize, Whiten

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
EPS = torch.finfo(torch.float64).eps


def rows(*shape: int, seed: int = 0, offset: float = 2.0) -> Tensor:
    """Correlated float64 rows of uneven spread, away from zero."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(shape[-1], shape[-1], generator=generator, dtype=torch.float64)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) @ mix + offset


def covariance(x: Tensor) -> Tensor:
    return torch.cov(x.T, correction=0)


def whitening_tolerance(x: Tensor) -> float:
    """An eigendecomposition errs by some d roundings of λ₁, the scatter by some √n; whitening divides them by λ_d."""
    eigenvalues = torch.linalg.eigvalsh(covariance(x))
    return float(10 * (x.shape[1] + len(x) ** 0.5) * EPS * eigenvalues[-1] / eigenvalues[0])


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_centring_float32_rows_is_exact_to_one_rounding(offset: float) -> None:
    x = torch.randn(30_000, 24, generator=torch.Generator().manual_seed(0)) + offset
    center = Center().fit(x)
    exact = x.double().mean(0)
    # Sums of differences of order 1 from a row of the data, in float64, for any offset.
    assert (torch.from_numpy(center.mean_) - exact).abs().max() < 30_000**0.5 * EPS * max(offset, 1)
    assert torch.equal(center.transform(x), (x.double() - torch.from_numpy(center.mean_)).float())


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e6])
def test_standard_deviations_keep_their_digits_far_from_zero(ratio: float) -> None:
    x = torch.randn(5000, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + ratio
    standardize = Standardize().fit(x)
    right = torch.var(x - x[0], 0, correction=0)
    assert (torch.from_numpy(standardize.var_) / right - 1).abs().max() < 1e-13
    out = standardize.transform(x)
    assert (out.std(0, correction=0) - 1).abs().max() < 1e-12


def test_standardize_is_scikit_learns() -> None:
    x = rows(200, 6).numpy()
    ours, theirs = Standardize().fit(x), StandardScaler().fit(x)
    np.testing.assert_allclose(ours.scale_, theirs.scale_, rtol=1e-12)
    np.testing.assert_allclose(ours.transform(x), theirs.transform(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 0.1, 1000.1])
def test_a_dimension_that_does_not_vary_comes_out_zero(dtype: torch.dtype, value: float) -> None:
    x = rows(3000, 5).to(dtype)
    x[:, 3] = value
    for fitted in (Standardize().fit(x), Standardize().partial_fit(x[:11]).partial_fit(x[11:])):
        assert fitted.scale_[3] == 1
        assert not fitted.transform(x)[:, 3].any()


@pytest.mark.parametrize("value", [0.1, 1000.1])
def test_a_constant_is_one_in_a_state_that_rounded_it_too(value: float) -> None:
    x = rows(3000, 5).float()
    x[:, 3] = value
    accumulator = fastaniso.Accumulator(gram="raw")
    for batch in x.split([7, 1000, 993, 1000]):
        accumulator.update(batch)
    fitted = Standardize.from_state(accumulator.state)
    assert fitted.scale_[3] == 1
    # The mean of float32 sums is off by some roundings, and that is all there is to see.
    assert fitted.transform(x)[:, 3].abs().max() <= 4 * torch.finfo(torch.float32).eps * value
    np.testing.assert_allclose(fitted.scale_, x.double().std(0, correction=0).masked_fill(x.std(0) == 0, 1), rtol=1e-5)


def test_pca_whitening_is_scikit_learns_over_n() -> None:
    x = rows(300, 6)
    ours = Whiten().fit(x)
    theirs = PCA(whiten=True, svd_solver="full").fit(x.numpy())
    expected = theirs.transform(x.numpy()) * (300 / 299) ** 0.5
    signs = np.sign((ours.components_ * theirs.components_).sum(1))
    np.testing.assert_allclose(ours.transform(x).numpy() * signs, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.eigenvalues_, theirs.explained_variance_ * 299 / 300, rtol=1e-12)
    largest = np.abs(ours.components_).argmax(1)
    assert (ours.components_[np.arange(6), largest] > 0).all()


@pytest.mark.parametrize("method", ["pca", "zca"])
@pytest.mark.parametrize("device", DEVICES)
def test_whitened_rows_have_identity_covariance(method: str, device: str) -> None:
    x = rows(5000, 24, offset=50.0).to(device)
    white = Whiten(method=method).fit_transform(x)
    tolerance = whitening_tolerance(x.cpu())
    assert white.device == x.device
    assert (covariance(white).cpu() - torch.eye(24)).abs().max() < tolerance < 1e-6
    assert white.mean(0).abs().max() < tolerance


def test_zca_is_symmetric_and_closest_to_the_rows() -> None:
    x = rows(500, 10)
    zca = Whiten(method="zca").fit(x)
    np.testing.assert_allclose(zca.matrix_, zca.matrix_.T, rtol=0, atol=1e-12 * np.abs(zca.matrix_).max())
    centred = x - x.mean(0)
    moved = (zca.transform(x) - centred).square().sum()
    turned = (Whiten().fit_transform(x) - centred).square().sum()
    assert moved < turned


def test_shrinkage_mixes_in_the_scaled_identity() -> None:
    x = rows(400, 7)
    plain = np.linalg.eigvalsh(covariance(x).numpy())[::-1]
    for shrinkage in (0.0, 0.3, 1.0):
        shrunk = (1 - shrinkage) * plain + shrinkage * plain.mean()
        whiten = Whiten(method="zca", shrinkage=shrinkage).fit(x)
        np.testing.assert_allclose(whiten.eigenvalues_, shrunk, rtol=1e-10)
    np.testing.assert_allclose(whiten.matrix_, np.eye(7) / plain.mean() ** 0.5, rtol=0, atol=1e-12)


def test_null_directions_come_out_zero_and_not_as_noise() -> None:
    x = rows(9, 20)
    white = Whiten().fit_transform(x)
    assert (covariance(white)[:8, :8] - torch.eye(8)).abs().max() < 1e-9
    assert not white[:, 8:].any()
    assert (Whiten().fit(x).eigenvalues_ >= 0).all()
    assert not Whiten().fit_transform(torch.ones(4, 3)).any()
    full = Whiten(shrinkage=0.5).fit(x)
    assert np.linalg.matrix_rank(full.matrix_) == 20


def test_all_but_the_top_removes_the_top_directions_of_the_centred_rows() -> None:
    x = rows(700, 12)
    top = AllButTheTop(n_components=3).fit(x)
    centred = x - x.mean(0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    out = top.transform(x)
    assert (out @ directions[:3].T).abs().max() < 1e-11
    torch.testing.assert_close(out, centred - centred @ directions[:3].T @ directions[:3], rtol=0, atol=1e-11)
    torch.testing.assert_close(torch.linalg.svdvals(out)[:9], singular[3:], rtol=1e-10, atol=0)
    np.testing.assert_allclose(top.eigenvalues_, singular[:3].square() / 700, rtol=1e-11)
    # The recipe that projects uncentred rows leaves a constant drift along what it was to remove.
    recipe = centred - x @ directions[:3].T @ directions[:3]
    uncentred = out.numpy() - top.mean_ @ top.components_.T @ top.components_
    np.testing.assert_allclose(uncentred, recipe, rtol=0, atol=1e-11)
    assert np.linalg.norm(recipe.mean(0)) > 1


@pytest.mark.parametrize(("dim", "expected"), [(1, 1), (20, 1), (149, 1), (151, 2), (300, 3)])
def test_all_but_the_top_takes_a_hundredth_of_the_dimensions(dim: int, expected: int) -> None:
    assert AllButTheTop().fit(rows(10, dim)).components_.shape == (expected, dim)


def test_dropped_dimensions_are_those_that_contribute_most() -> None:
    x = rows(300, 9).float()
    x[:, 4] += 30
    x[17] = 0
    drop = DropDimensions(n_dimensions=2).fit(x)
    contributions = fastaniso.dimension_contributions(x, invalid="omit")
    np.testing.assert_allclose(drop.contributions_, contributions.values, rtol=1e-5)
    assert drop.dimensions_.tolist() == contributions.top(2).indices.tolist()
    left = [k for k in range(9) if k not in drop.dimensions_]
    assert torch.equal(drop.transform(x), x[:, left])
    given = DropDimensions(dimensions=[7, 4]).fit(x)
    assert given.dimensions_.tolist() == [4, 7]
    assert torch.equal(given.transform(x), x[:, [0, 1, 2, 3, 5, 6, 8]])
    assert [DropDimensions().fit(rows(5, d)).transform(rows(5, d)).shape[1] for d in (1, 2, 5, 6, 7)] == [1, 1, 3, 3, 4]


@pytest.mark.parametrize("where", ["first", "last", "most"])
def test_zero_rows_and_repeated_rows_count(where: str) -> None:
    x = rows(40, 4)
    zero = {"first": slice(0, 3), "last": slice(35, 40), "most": slice(2, 39)}[where]
    x[zero] = 0
    x[39] = x[0]
    for fitted in (Whiten(method="zca", shrinkage=0.2).fit(x), Whiten(method="zca", shrinkage=0.2)):
        if not hasattr(fitted, "mean_"):
            fitted.fit_state(fastaniso.Accumulator(gram=True, invalid="omit").update(x).state)
        np.testing.assert_allclose(fitted.mean_, x.mean(0).numpy(), rtol=0, atol=1e-13)
        exact = torch.linalg.eigvalsh(covariance(x))
        shrunk = 0.8 * exact + 0.2 * exact.mean()
        np.testing.assert_allclose(fitted.eigenvalues_[::-1], shrunk.numpy(), rtol=1e-9)
    np.testing.assert_allclose(Standardize().fit(x).var_, x.var(0, correction=0).numpy(), rtol=1e-12)
