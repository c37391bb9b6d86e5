"""Laws that hold for the cosines of any rows: order, rotation, scale, splits, and the quantiles' bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastaniso
from fastaniso import PairStatistics

law = settings(max_examples=30, deadline=None)
DTYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16}
VALUES = ("mean", "mean_abs", "uniformity")


@st.composite
def any_rows(draw: st.DrawFn, *, smallest: int = 2) -> Tensor:
    n, d = draw(st.integers(smallest, 40)), draw(st.integers(1, 20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    rows = torch.randn(n, d, dtype=torch.float64, generator=generator) + draw(st.sampled_from([0.0, 0.5, 30.0]))
    if draw(st.booleans()):  # the same row and its opposite, again and again
        rows = rows[torch.randint(0, n, (n,), generator=generator)]
        rows *= torch.randint(0, 2, (n, 1), generator=generator) * 2 - 1
    return rows.to(DTYPES[draw(st.sampled_from(list(DTYPES)))])


def _agree(a: PairStatistics, b: PairStatistics, tolerance: float) -> None:
    assert a.pairs == b.pairs
    for name in VALUES:
        assert getattr(a, name) == pytest.approx(getattr(b, name), abs=tolerance), name
    assert a.std is not None
    assert b.std is not None
    # A std near 0 is the root of what rounding leaves of a variance.
    assert a.std**2 == pytest.approx(b.std**2, abs=4 * tolerance)
    q = [0, 0.1, 0.5, 0.9, 1]
    ours, theirs = a.quantile(q), b.quantile(q)
    # Both bounds hold one order statistic, but for what moved the cosines.
    assert (np.abs(ours.value - theirs.value) <= ours.bound + theirs.bound + tolerance).all()


@law
@given(any_rows(), st.randoms(use_true_random=False))
def test_order_does_not_matter(x: Tensor, random: object) -> None:
    order = list(range(len(x)))
    random.shuffle(order)  # type: ignore[attr-defined]
    a, b = fastaniso.pairs(x), fastaniso.pairs(x[order])
    # The product of two rows is one number, wherever they stand.
    assert np.array_equal(a.histogram.total, b.histogram.total)
    _agree(a, b, 1e-6)
    assert a.min is not None
    assert b.min is not None
    assert a.min.value == b.min.value


@law
@given(any_rows(), st.integers(0, 2**32))
def test_rotation_does_not_matter(x: Tensor, seed: int) -> None:
    d = x.shape[1]
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))
    a, b = (fastaniso.pairs(rows) for rows in (x.double(), x.double() @ rotation))
    _agree(a, b, 1e-6)


@law
@given(any_rows(), st.integers(0, 2**32))
def test_the_scale_of_a_row_does_not_matter(x: Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    powers = 2.0 ** torch.randint(-20, 20, (len(x), 1), generator=generator)
    a, b = fastaniso.pairs(x), fastaniso.pairs(x * powers.to(x.dtype))
    assert np.array_equal(a.histogram.total, b.histogram.total)
    _agree(a, b, 1e-6)
    scaled = x.double() * (0.1 + torch.rand(len(x), 1, dtype=torch.float64, generator=generator))
    _agree(fastaniso.pairs(x.double()), fastaniso.pairs(scaled), 1e-6)


@law
@given(any_rows(), st.integers(0, 40))
def test_split_is_whole(x: Tensor, cut: int) -> None:
    first, second = x[:cut], x[cut:]
    whole = fastaniso.cosine_histogram(x)
    parts = [fastaniso.cosine_histogram(*sets) for sets in ((first,), (second,), (first, second))]
    assert np.array_equal(sum(part.total for part in parts), whole.total)


@law
@given(any_rows(), st.integers(0, 2**32))
def test_masked_is_dropped(x: Tensor, seed: int) -> None:
    keep = torch.rand(len(x), generator=torch.Generator().manual_seed(seed)) < 0.6
    masked = fastaniso.pairs(torch.where(keep[:, None], x, torch.nan), mask=keep)
    dropped = fastaniso.pairs(x[keep])
    assert np.array_equal(masked.histogram.total, dropped.histogram.total)
    assert masked.n == dropped.n


@law
@given(any_rows(), st.integers(64, 3000), st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_the_bound_of_a_quantile_is_never_broken(x: Tensor, bins: int, q: list[float]) -> None:
    u = torch.nn.functional.normalize(x.double(), dim=1)
    i, j = torch.triu_indices(len(x), len(x), 1)
    # From distances of unit rows: exact near ±1, too.
    cosines = torch.where(
        (u[i] * u[j]).sum(1) > 0,
        1 - (u[i] - u[j]).square().sum(1) / 2,
        (u[i] + u[j]).square().sum(1) / 2 - 1,
    ).numpy()
    true = np.quantile(cosines, q, method="inverted_cdf")
    for found in (fastaniso.cosine_quantiles(x, q, bins=bins), fastaniso.pairs(x, bins=bins).quantile(q)):
        assert (np.abs(found.value - true) <= found.bound).all()
        assert (found.bound <= 1 / bins + 30 * 2.0**-24).all()


@law
@given(any_rows())
def test_neighbours_are_the_largest_cosines(x: Tensor) -> None:
    k = min(3, len(x) - 1)
    cosines, indices = fastaniso.nearest_neighbors(x, k)
    _, largest = fastaniso.cosine_extrema(x)
    assert cosines.max().item() == pytest.approx(largest.value, abs=1e-6)
    assert (cosines[:, :-1] >= cosines[:, 1:]).all()
    assert (indices != torch.arange(len(x))[:, None]).all()
    assert all(len(set(row)) == k for row in indices.tolist())
