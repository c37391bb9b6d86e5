"""The histogram of cosines: quantiles within their bounds, shares, and what plotting packages read."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastaniso.result import Histogram
from fastaniso.result.histogram import Floats


def histogram_of(cosines: Floats, bins: int, *, extrema: bool = False) -> Histogram:
    counts, edges = np.histogram(cosines, bins, (-1, 1))
    known = (cosines.min(), cosines.max()) if extrema and len(cosines) else None
    return Histogram(counts.astype(np.int64), edges, 1e-15, known)


@st.composite
def cosines(draw: st.DrawFn) -> Floats:
    values = st.one_of(st.floats(-1, 1), st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]))
    return np.array(draw(st.lists(values, min_size=1, max_size=40)))


@settings(max_examples=300, deadline=None)
@given(cosines(), st.integers(1, 80), st.booleans(), st.lists(st.floats(0, 1), max_size=5))
def test_quantiles_are_within_their_bound(values: Floats, bins: int, extrema: bool, shares: list[float]) -> None:
    histogram = histogram_of(values, bins, extrema=extrema)
    q = np.array([0, 1, 0.5, *shares])
    found = histogram.quantile(q)
    true = np.quantile(values, q, method="inverted_cdf")
    assert (np.abs(found.value - true) <= found.bound).all()
    assert (found.bound <= 1 / bins + 1e-14).all()
    assert found.interval is None
    if extrema:
        assert found.value[:2].tolist() == [values.min(), values.max()]
    one = histogram.quantile(0.5)
    assert (one.value, one.bound) == (found.value[2], found.bound[2])
    assert type(one.value) is float


@settings(max_examples=200, deadline=None)
@given(cosines(), st.integers(1, 80), st.floats(-1, 1))
def test_shares_are_within_their_bound(values: Floats, bins: int, t: float) -> None:
    histogram = histogram_of(values, bins)
    share = histogram.share_above(t)
    edges = histogram.edges
    if t in edges:
        assert share.bound == 0
        assert share.value == pytest.approx((values >= t).mean() if t < 1 else 0)
    else:
        assert abs(share.value - (values > t).mean()) <= share.bound + 1e-15
        assert share.bound <= histogram.total.max() / len(values)


def test_a_quantile_of_many_pairs_is_counted_in_integers() -> None:
    counts = np.array([2**52 + 1, 1, 2**52 - 2], dtype=np.int64)
    histogram = Histogram(counts, np.linspace(-1, 1, 4), 0.0)
    assert histogram.quantile(1).value == pytest.approx(2 / 3)
    assert histogram.pairs == 2**53
    assert histogram.share_above(1).value == 0


def test_without_pairs_everything_is_nan() -> None:
    empty = histogram_of(np.array([]), 64)
    assert np.isnan(empty.quantile([0.1, 0.9]).value).all()
    assert np.isnan(empty.quantile(0.5).bound)
    assert np.isnan(empty.share_above(0.5).value)
    assert np.isnan(empty.density).all()


def test_what_is_no_share_and_no_cosine_is_refused() -> None:
    histogram = histogram_of(np.array([0.1]), 64)
    for q in (-0.1, 1.5, [0.5, np.nan]):
        with pytest.raises(ValueError, match="q: expected numbers from 0 to 1"):
            histogram.quantile(q)
    with pytest.raises(ValueError, match=r"t: expected a cosine from -1 to 1, got 1\.5"):
        histogram.share_above(1.5)


def test_it_unpacks_like_numpys() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 1000)
    histogram = histogram_of(values, 64)
    counts, edges = histogram
    theirs, their_edges = np.histogram(values, 64, (-1, 1))
    assert np.array_equal(counts, theirs)
    assert np.array_equal(edges, their_edges)
    density, _ = np.histogram(values, 64, (-1, 1), density=True)
    np.testing.assert_allclose(histogram.density, density)
    assert repr(histogram) == "Histogram(64 bins over [-1, 1], 1,000 pairs)"


def test_it_is_frozen_and_can_be_pickled() -> None:
    histogram = histogram_of(np.array([0.1, 0.2]), 64)
    with pytest.raises(dataclasses.FrozenInstanceError):
        histogram.total = histogram.total  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        histogram.total[0] = 1
    again = pickle.loads(pickle.dumps(histogram))
    assert np.array_equal(again.total, histogram.total)


def test_the_axis_is_a_sequence_of_edges() -> None:
    (axis,) = histogram_of(np.array([0.1]), 64).axes
    assert len(axis) == 64
    assert axis[0] == (-1, -1 + 2 / 64)
    assert axis[-1] == axis[63] == list(axis)[63]
    with pytest.raises(IndexError, match="bin 64 of 64"):
        axis[64]
    assert axis == histogram_of(np.array([]), 64).axes[0]
    assert axis != histogram_of(np.array([]), 65).axes[0]
    assert not axis.traits.circular
    assert not axis.traits.discrete


def test_plotting_packages_read_it() -> None:
    plottable = pytest.importorskip("uhi.typing.plottable")
    numpy_plottable = pytest.importorskip("uhi.numpy_plottable")
    values = np.random.default_rng(0).uniform(-1, 1, 1000)
    histogram = histogram_of(values, 64)
    assert isinstance(histogram, plottable.PlottableHistogram)
    assert isinstance(histogram.axes[0], plottable.PlottableAxisGeneric)
    assert numpy_plottable.ensure_plottable_histogram(histogram) is histogram
    assert histogram.kind == "COUNT"
    assert histogram.values().dtype == np.float64
    assert np.array_equal(histogram.variances(), histogram.total)
    assert np.array_equal(histogram.counts(), histogram.total)


def test_histogram_packages_copy_it() -> None:
    boost_histogram = pytest.importorskip("boost_histogram")
    histogram = histogram_of(np.random.default_rng(0).uniform(-1, 1, 1000), 64)
    copy = boost_histogram.Histogram(histogram)
    assert np.array_equal(copy.values(), histogram.total)
    np.testing.assert_allclose(copy.axes[0].edges, histogram.edges)
    estimated = Histogram(histogram.values() * 3, histogram.edges, 0.0, None, histogram.values() * 7)
    copy = boost_histogram.Histogram(estimated)
    assert np.array_equal(copy.variances(), estimated.variances())
    assert np.array_equal(copy.values(), estimated.total)
    # Sum of weights² over sum of weights squared.
    np.testing.assert_allclose(estimated.counts(), 9 / 7 * histogram.total)
