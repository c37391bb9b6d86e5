"""Samples of the pair grid: unbiased, with intervals that hold, whatever order the rows come in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastaniso
from fastaniso import PairStatistics
from fastaniso.pairing.sets import Sets, as_sets
from fastaniso.progress import Progress
from fastaniso.result import Interval
from fastaniso.sampling import Design, Grid, design, sample_pairs
from fastaniso.sampling.design import LEAST_TILES, Blocks
from fastaniso.sampling.estimate import share_interval, student

THRESHOLDS = (0.3, 0.98)
NAMES = ("mean", "std", "mean_abs", "uniformity")


def clustered(n: int, seed: int = 0) -> Tensor:
    """Eight clusters side by side, and a twentieth of the rows one and the same."""
    generator = torch.Generator().manual_seed(seed)
    centres = 1.5 * torch.randn(8, 6, generator=generator)
    rows = centres[torch.arange(n) * 8 // n] + 0.6 * torch.randn(n, 6, generator=generator)
    rows[: n // 20] = rows[0]
    return rows


def grid_of(n: int, rows: int, others: int | None = None, other_rows: int = 1) -> Grid:
    return Grid(Blocks(n, -(-n // rows)), None if others is None else Blocks(others, -(-others // other_rows)))


def sampled(sets: Sets, grid: Grid, tiles: int, seed: int) -> PairStatistics:
    asked = sets.asked(bins=256, uniformity_t=(2.0,), thresholds=THRESHOLDS)
    drawn = Design(grid, tiles, None, products_a_call=0, dim=sets.rows.dim)
    estimate = sample_pairs(sets, asked, drawn, seed=seed, progress=None)
    assert estimate is not None
    return estimate


def _sets(x: Tensor, other: Tensor | None = None, **masks: Any) -> Sets:
    options = {"mask": None, "other_mask": None, "backend": "cpu", "invalid": "omit", **masks}
    return as_sets(x, other, **options)


def _exact(x: Tensor, other: Tensor | None = None, **options: Any) -> PairStatistics:
    return fastaniso.pairs(x, other, bins=256, thresholds=THRESHOLDS, **options)


COVERED: dict[str, tuple[Tensor, Tensor | None, Grid, int]] = {
    "clusters": (clustered(240), None, grid_of(240, 12), 40),
    "blocks of two sizes": (clustered(257), None, grid_of(257, 9), 64),
    "two sets": (clustered(240), clustered(150, 1), grid_of(240, 12, 150, 9), 50),
    "small tiles": (clustered(500), None, grid_of(500, 4), 64),
}


@pytest.mark.parametrize("case", COVERED)
def test_intervals_hold_and_estimates_are_unbiased(case: str) -> None:
    x, other, grid, tiles = COVERED[case]
    sets, whole, draws = _sets(x, other), _exact(x, other), 250
    hits: dict[str, int] = {}
    estimates: dict[str, list[float]] = {}

    def count(name: str, interval: Interval | None, true: float, value: float, bound: float = 0.0) -> None:
        assert interval is not None
        hits[name] = hits.get(name, 0) + (interval.low - bound <= true <= interval.high + bound)
        estimates.setdefault(name, []).append(value - true)

    for seed in range(draws):
        result = sampled(sets, grid, tiles, seed)
        assert result.intervals is not None
        for name in NAMES:
            count(name, getattr(result.intervals, name), getattr(whole, name), getattr(result, name))
        for t in THRESHOLDS:
            share = result.share_above(t)
            count(f"above {t}", share.interval, whole.share_above(t).value, share.value)
        for q in (0.01, 0.5, 0.95):
            ours, theirs = result.quantile(q), whole.quantile(q)
            count(f"quantile {q}", ours.interval, theirs.value, ours.value, theirs.bound)
        assert result.std is not None
        estimates.setdefault("variance", []).append(result.std**2 - whole.std**2 if whole.std else math.nan)
    # 3.5 standard deviations of the number of hits below 95 %: one run in 4000 fails by chance, and seeds are fixed.
    least = 0.95 - 3.5 * math.sqrt(0.95 * 0.05 / draws)
    assert all(hit / draws >= least for hit in hits.values()), hits
    for name in ("mean", "mean_abs", "variance", *(f"above {t}" for t in THRESHOLDS)):
        errors = np.array(estimates[name])
        assert abs(errors.mean()) <= 3.5 * errors.std() / math.sqrt(draws), name


@pytest.mark.parametrize("other", [None, clustered(41, 1)])
def test_all_tiles_are_all_pairs(other: Tensor | None) -> None:
    x = clustered(103)
    grid = grid_of(103, 10, None if other is None else 41, 7)
    result, whole = sampled(_sets(x, other), grid, 9 * grid.tiles, 0), _exact(x, other)
    assert np.array_equal(result.histogram.total, whole.histogram.total)
    assert result.pairs == whole.pairs == round(result.histogram.total.sum())
    assert result.intervals is not None
    for name in (*NAMES, "skewness", "kurtosis"):
        assert getattr(result, name) == pytest.approx(getattr(whole, name), abs=1e-5), name
    for name in NAMES:
        # A square root of what rounding leaves of a variance of zero.
        low, high = getattr(result.intervals, name)
        assert high - low <= 1e-6
    for t in THRESHOLDS:
        share = result.share_above(t)
        assert share.value == pytest.approx(whole.share_above(t).value, rel=1e-12)
    assert result.min is not None
    assert whole.min is not None
    assert result.min.value == whole.min.value
    assert (result.histogram.variances() <= 1e-6).all()
    assert result.sample is not None
    assert (result.sample.tiles, result.sample.pairs) == (grid.tiles, grid.pairs)


def test_a_seed_stands_for_a_sample() -> None:
    x = clustered(300)
    first, again, another = (sampled(_sets(x), grid_of(300, 8), 64, seed) for seed in (5, 5, 6))
    assert first.to_dict() == again.to_dict()
    assert np.array_equal(first.histogram.total, again.histogram.total)
    assert first.mean != another.mean


def test_dropped_rows_are_in_no_pair() -> None:
    x = clustered(300)
    keep = torch.arange(300) % 3 > 0
    dirty = torch.where(keep[:, None], x, torch.nan)
    grid = grid_of(200, 20)
    for hidden, mask in ((dirty, None), (x, keep), (dirty, torch.arange(300) % 3 < 3)):
        sets = _sets(hidden.view(3, 100, 6), mask=None if mask is None else mask.view(3, 100))
        result = sampled(sets, grid, 9 * grid.tiles, 1)
        whole = _exact(x[keep])
        assert result.n == 200
        assert np.array_equal(result.histogram.total, whole.histogram.total)
        for extreme, true in ((result.min, whole.min), (result.max, whole.max)):
            assert extreme is not None
            assert true is not None
            assert extreme.value == true.value
            assert keep[[extreme.i, extreme.j]].all()
            assert extreme.i < extreme.j


def test_extrema_are_those_of_the_pairs_drawn() -> None:
    x = clustered(400)
    result = sampled(_sets(x), grid_of(400, 10), 64, 0)
    units = torch.nn.functional.normalize(x.double(), dim=1)
    for extreme in (result.min, result.max):
        assert extreme is not None
        assert units[extreme.i] @ units[extreme.j] == pytest.approx(extreme.value, abs=1e-6)
    assert not result.exact
    assert "the least and the largest cosine are those of the pairs visited" in str(result)


LARGE = torch.randn(12_000, 96, generator=torch.Generator().manual_seed(0)) + 0.4


def test_the_public_function_samples() -> None:
    calls: list[Progress] = []
    result = fastaniso.pairs(LARGE, sample=10**6, seed=3, thresholds=(0.5,), progress=calls.append)
    whole = fastaniso.pairs(LARGE, thresholds=(0.5,))
    assert result.sample is not None
    assert 0.9e6 <= result.sample.pairs <= 1.2e6
    assert result.sample.tiles >= LEAST_TILES
    assert result.sample.seed == 3
    assert (calls[-1].done, calls[-1].share) == (result.sample.pairs, 1.0)
    assert result.intervals is not None
    for name in NAMES:
        low, high = getattr(result.intervals, name)
        assert low <= getattr(result, name) <= high
        assert abs(getattr(result, name) - getattr(whole, name)) <= 3 * (high - low)
    text = str(result)
    assert f"{result.sample.pairs:,} visited in {result.sample.tiles:,} of" in text
    assert result.to_dict()["intervals"]["mean"] == getattr(result.intervals.mean, "_asdict", dict)()
    result.to_json()


@pytest.mark.parametrize("error", [0.05, 0.015])
def test_a_relative_error_is_kept(error: float) -> None:
    whole = fastaniso.mean_cosine(LARGE)
    for seed in range(2):
        result = fastaniso.pairs(LARGE, sample=error, seed=seed)
        assert result.sample is not None
        assert result.intervals is not None
        assert result.intervals.mean is not None
        low, high = result.intervals.mean
        assert (high - low) / 2 <= error * whole
        # An interval of 95 %: outside of one twice as wide is one draw in ten thousand.
        assert abs((result.mean or 0) - whole) <= 2 * error * whole


def test_where_all_pairs_cost_no_more_they_are_taken() -> None:
    small = fastaniso.pairs(LARGE[:500], sample=1000)
    assert small.exact
    assert small.sample is None
    assert small.mean == fastaniso.pairs(LARGE[:500]).mean
    assert fastaniso.pairs(LARGE[:4000], sample=8 * 10**6).exact
    # A mean of nearly zero has no relative error worth a sample: the pilot finds out.
    balanced = torch.cat((LARGE[:6000], -LARGE[:6000]))
    assert fastaniso.pairs(balanced, sample=0.01).exact
    assert fastaniso.pairs(LARGE[:1], sample=0.1).exact


def test_the_memory_of_a_sample_is_bounded() -> None:
    with pytest.raises(MemoryError, match="memory_limit: 2 MB given"):
        fastaniso.pairs(LARGE, sample=10**6, memory_limit="2 MB")
    assert fastaniso.plan(10**8, 768, pairs=True, sample=10**6).peak_bytes < 24 * 10**8 + 2**26


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 120), st.one_of(st.none(), st.integers(1, 60)), st.integers(1, 40), st.integers(1, 30))
def test_strata_hold_every_pair_once(n: int, others: int | None, rows: int, other_rows: int) -> None:
    grid = grid_of(n, rows, others, other_rows)
    seen = np.zeros((n, n if others is None else others), int)
    columns = grid.others or grid.rows
    for stratum in grid.strata:
        for rank in range(stratum.tiles):
            i, j = stratum.tile(rank)
            a, b = slice(*grid.rows.edges(i)), slice(*columns.edges(j))
            tile = np.ones_like(seen[a, b])
            tile = np.triu(tile, 1) if stratum.shape == "diagonal" else tile
            assert tile.sum() == stratum.pairs
            seen[a, b] += tile
    assert np.array_equal(seen, np.triu(np.ones_like(seen), 1) if others is None else np.ones_like(seen))
    assert grid.pairs == seen.sum()


@given(st.integers(2, 10**7), st.one_of(st.none(), st.integers(2, 10**6)), st.sampled_from([2, 64, 768, 8192]))
def test_designs_are_sensible(n: int, others: int | None, dim: int) -> None:
    for sample in (1000, 10**6, 10**9, 0.1, 0.001):
        drawn = design(n, others, dim, sample, "cpu")
        if drawn is None:
            continue
        assert drawn.tiles >= LEAST_TILES
        assert drawn.sampled_pairs(drawn.tiles) < drawn.grid.pairs
        if isinstance(sample, int):
            assert drawn.sampled_pairs(drawn.tiles) >= 0.95 * sample
        sizes = {stop - start for start, stop in (drawn.grid.rows.edges(b) for b in (0, drawn.grid.rows.blocks - 1))}
        assert max(sizes) - min(sizes) <= 1


def test_a_triangle_of_many_tiles_is_numbered_without_rounding() -> None:
    grid = Grid(Blocks(10**9, 10**9), None)
    (triangle,) = grid.strata
    for rank in (0, 1, 2, triangle.tiles // 2, triangle.tiles - 1):
        i, j = triangle.tile(rank)
        assert 0 <= i < j < 10**9
        assert j * (j - 1) // 2 + i == rank


def test_intervals_of_shares_are_clopper_and_pearsons() -> None:
    beta = pytest.importorskip("scipy.stats").beta
    for n in (20, 500):
        for x in (0, 1, 3, n // 2, n - 1, n):
            low, high = share_interval(x / n, x / n * (1 - x / n) / n, math.inf, n)
            true_low = beta.ppf(0.025, x, n - x + 1) if x else 0
            true_high = beta.ppf(0.975, x + 1, n - x) if x < n else 1
            assert low == pytest.approx(true_low, rel=0.03 if x > 1 else 0.6)
            assert high == pytest.approx(true_high, rel=0.03)
            assert low <= x / n <= high
    assert share_interval(0.25, 0.0, math.inf, 10) == (0.25, 0.25)  # every tile was drawn


@pytest.mark.parametrize("freedom", [2, 3, 5.5, 30, math.inf])
def test_students_t(freedom: float) -> None:
    t = pytest.importorskip("scipy.stats").t
    assert student(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=0.01)
