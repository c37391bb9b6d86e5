"""LiDAR against brute force; laws; streaming; what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastaniso
from fastaniso import InvalidRowsError
from fastaniso.functional import group_stream

GENERATOR = torch.Generator().manual_seed(0)
CLASSES = torch.randint(0, 9, (300,), generator=GENERATOR) * 7 - 20
MEANS = 2 * torch.randn(9, 8, generator=GENERATOR)
X = MEANS[(CLASSES + 20) // 7] + torch.randn(300, 8, generator=GENERATOR) * torch.arange(1, 9) / 4 + 3


def by_definition(x: Tensor, classes: Tensor, delta: float = 1e-4, epsilon: float = 1e-7) -> float:
    """Both covariances formed class by class, and the square root of one inverted."""
    x = x.double()
    within, between = torch.zeros(2, x.shape[1], x.shape[1], dtype=torch.float64)
    mean = x.mean(0)
    for label in classes.unique():
        rows = x[classes == label]
        own = rows.mean(0)
        within = within + (rows - own).T @ (rows - own)
        between = between + len(rows) * torch.outer(own - mean, own - mean)
    values, vectors = torch.linalg.eigh(within / len(x) + delta * torch.eye(x.shape[1], dtype=torch.float64))
    root = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    eigenvalues = torch.linalg.eigvalsh(root @ (between / len(x)) @ root).clamp(min=0)
    p = eigenvalues / eigenvalues.sum() + epsilon
    return float(torch.exp(-(p * p.log()).sum()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"delta": 0.5}, {"delta": 0.0, "epsilon": 0.0}], ids=str)
def test_against_the_definition(dtype: torch.dtype, options: dict[str, float]) -> None:
    x = X.to(dtype)
    assert fastaniso.lidar(x, CLASSES, **options) == pytest.approx(by_definition(x, CLASSES, **options), rel=1e-9)


def test_masked_rows_and_rows_left_out() -> None:
    x, keep = X.clone(), torch.arange(300) % 3 > 0
    assert fastaniso.lidar(x, CLASSES, mask=keep) == pytest.approx(by_definition(x[keep], CLASSES[keep]), rel=1e-9)
    x[7], x[100, 2] = 0, math.inf
    with pytest.raises(InvalidRowsError, match="row 7 is the first that is zero"):
        fastaniso.lidar(x, CLASSES)
    left = x.isfinite().all(1) & (x != 0).any(1)
    found = fastaniso.lidar(x, CLASSES, invalid="omit")
    assert found == pytest.approx(by_definition(x[left], CLASSES[left]), rel=1e-9)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("rows_at_once", [1, 7, 299])
def test_blocks_change_nothing(rows_at_once: int, ordered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = CLASSES.sort().values if ordered else CLASSES
    whole = fastaniso.lidar(X, classes)
    monkeypatch.setattr(group_stream, "_NUMBERS", 8 * rows_at_once)
    assert fastaniso.lidar(X, classes) == pytest.approx(whole, rel=1e-12)


def test_directions_that_tell_classes_apart_count() -> None:
    generator = torch.Generator().manual_seed(1)
    means = torch.zeros(40, 16, dtype=torch.float64)
    means[:, :5] = torch.randn(40, 5, dtype=torch.float64, generator=generator)
    means[:, :5] = torch.linalg.qr(means[:, :5] - means[:, :5].mean(0))[0]  # five directions, equally far
    noise = torch.randn(60, 16, dtype=torch.float64, generator=generator)
    noise = noise - noise.mean(0)
    x = (means[:, None] + noise).flatten(0, 1)
    classes = torch.arange(40).repeat_interleave(len(noise))
    assert fastaniso.lidar(x, classes, epsilon=0.0) <= 5 + 1e-9
    # Within a class one direction swamps all others: RankMe of the rows sees it alone, LiDAR all but it.
    swamped = 1000 * torch.randn(len(noise), dtype=torch.float64, generator=generator)
    x[:, 15] += (swamped - swamped.mean()).repeat(40)
    assert fastaniso.rankme(x) < 1.5
    assert fastaniso.lidar(x, classes, epsilon=0.0) > 3
    # Tight classes far apart and far from 0 keep their digits.
    far = 1e4 + 100 * means[classes] + 1e-3 * torch.randn(len(x), 16, dtype=torch.float64, generator=generator)
    assert fastaniso.lidar(far, classes, delta=1e-12) == pytest.approx(by_definition(far, classes, 1e-12), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(200, 260), st.integers(2, 30), st.integers(0, 2**32), st.sampled_from([0.0, 3.0, 100.0]))
def test_laws(n: int, groups: int, seed: int, offset: float) -> None:
    """Order of the rows, names of the classes, a shift, rotation, every row twice; scale if δ scales with it."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, groups, (n,), generator=generator)
    x = torch.randn(n, 6, dtype=torch.float64, generator=generator)
    x += torch.randn(groups, 6, dtype=torch.float64, generator=generator)[classes]
    found = fastaniso.lidar(x, classes)
    assert math.isnan(found) or 1 - 1e-9 <= found <= min(len(classes.unique()) - 1, 6) + 1e-4
    order = torch.randperm(n, generator=generator)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=generator))[0]
    moved = 100 * ((x + offset) @ rotation)[order]
    again = fastaniso.lidar(moved, 5 * classes[order] - 11, delta=1.0)
    assert again == pytest.approx(found, rel=1e-7, nan_ok=True)
    twice = fastaniso.lidar(torch.cat((x, x)), torch.cat((classes, classes)))
    assert twice == pytest.approx(found, rel=1e-9, nan_ok=True)


def test_too_little_to_tell() -> None:
    assert math.isnan(fastaniso.lidar(X[:0], CLASSES[:0]))
    assert math.isnan(fastaniso.lidar(X[:1], CLASSES[:1]))
    with pytest.warns(UserWarning, match="biased towards few directions"):
        fastaniso.lidar(X[:70], CLASSES[:70])
    assert math.isnan(fastaniso.lidar(X, torch.zeros_like(CLASSES)))
    # A row a class: nothing within but δ, so the covariance of the rows.
    alone = fastaniso.lidar(X.double(), torch.arange(300))
    eigenvalues = torch.linalg.eigvalsh(torch.cov(X.double().T))
    p = eigenvalues / eigenvalues.sum() + 1e-7
    assert alone == pytest.approx(float(torch.exp(-(p * p.log()).sum())), rel=1e-9)


def test_bad_input() -> None:
    for name in ("delta", "epsilon"):
        for value in (-1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{name}: expected a number"):
                fastaniso.lidar(X, CLASSES, **{name: value})
    with pytest.raises(TypeError, match="groups: expected integers, got float32"):
        fastaniso.lidar(X, CLASSES.float())
    with pytest.raises(MemoryError, match="memory_limit: 10 kB given"):
        fastaniso.lidar(X, CLASSES, memory_limit="10 kB")
    fastaniso.lidar(X, CLASSES, memory_limit="10 MB")
    with pytest.raises(ValueError, match=r"delta: with 0\.0 the covariance within classes is singular"):
        fastaniso.lidar(X, torch.arange(300), delta=0.0)
