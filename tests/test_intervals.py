"""Intervals over groups: against leaving groups out by hand, and how often they hold; curves over subsets."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from brute_force import isoscore, units, within_between
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastaniso
from fastaniso import InvalidRowsError
from fastaniso.functional import intervals
from fastaniso.sampling.estimate import student

BACKENDS = ("reference", "cpu")
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(90, 6, generator=GENERATOR) + 0.3
GROUPS = torch.tensor([-7, 3, 10**12, 5, 0])[torch.randint(0, 5, (90,), generator=GENERATOR)]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu":
        pytest.importorskip("fastaniso._cpu")
    return str(request.param)


def mean_of(x: Tensor, groups: Tensor, across: bool) -> float:
    if across:
        return within_between(x, groups)[1]
    u = units(x)
    return (u @ u.T)[~torch.eye(len(u), dtype=torch.bool)].mean().item()


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_jackknife_by_hand(across: bool, dtype: torch.dtype, backend: str) -> None:
    x = X.to(dtype)
    found = fastaniso.mean_cosine_interval(x, GROUPS, across=across, backend=backend)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    labels = GROUPS.unique()
    without = [mean_of(x[keep], GROUPS[keep], across) for keep in (labels[:, None] != GROUPS)]
    assert found.labels.tolist() == labels.tolist()
    assert found.without.tolist() == pytest.approx(without, abs=tolerance)
    assert found.mean == pytest.approx(mean_of(x, GROUPS, across), abs=tolerance)
    error = math.sqrt(4 / 5 * np.square(np.array(without) - np.mean(without)).sum())
    assert found.standard_error == pytest.approx(error, abs=10 * tolerance)
    low, high = found.interval
    # 2.776: Student's t of four degrees of freedom, which `student` knows to 1 %.
    assert (high - low) / 2 == pytest.approx(2.776 * error, rel=0.01)
    assert (high + low) / 2 == pytest.approx(found.mean, abs=1e-12)


def clustered(documents: int, alike: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Documents of 5 to 40 rows about a mean of their own."""
    sizes = torch.randint(5, 41, (documents,), generator=generator)
    groups = torch.repeat_interleave(torch.arange(documents), sizes)
    of_document = torch.randn(documents, 8, generator=generator) * alike
    return 0.5 + of_document[groups] + torch.randn(len(groups), 8, generator=generator), groups


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("documents", [12, 40])
def test_the_interval_holds_as_often_as_it_says(documents: int, across: bool) -> None:
    generator = torch.Generator().manual_seed(documents)
    draws = 300
    found = [fastaniso.mean_cosine_interval(*clustered(documents, 0.7, generator), across=across) for _ in range(draws)]
    # The value's expectation: the mean of all draws, known to a seventeenth of an interval's half.
    truth = np.mean([each.mean for each in found])
    held = np.mean([each.interval.low <= truth <= each.interval.high for each in found])
    # 95 % ± three standard deviations of 300 draws, and what few documents of unequal size take away.
    assert 0.89 <= held <= 0.985
    errors = np.mean([each.standard_error for each in found])
    assert errors == pytest.approx(np.std([each.mean for each in found]), rel=0.2)


def test_rows_taken_for_groups_promise_too_much() -> None:
    x, groups = clustered(40, 0.7, torch.Generator().manual_seed(1))
    by_document = fastaniso.mean_cosine_interval(x, groups)
    by_row = fastaniso.mean_cosine_interval(x, torch.arange(len(x)))
    assert by_row.mean == pytest.approx(by_document.mean, abs=1e-12)
    assert by_row.standard_error < by_document.standard_error / 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 8), st.booleans())
def test_laws_of_the_interval(seed: int, groups: int, across: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 5, dtype=torch.float64, generator=generator) + 0.2
    labels = torch.arange(40) % groups
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=generator))[0]
    order = torch.randperm(40, generator=generator)
    scale = torch.rand(40, 1, dtype=torch.float64, generator=generator) + 0.1
    a = fastaniso.mean_cosine_interval(x, labels, across=across)
    b = fastaniso.mean_cosine_interval((x * scale @ rotation)[order], 7 - labels[order], across=across)
    assert (a.mean, *a.interval) == pytest.approx((b.mean, *b.interval), abs=1e-9)
    assert a.without.tolist() == pytest.approx(b.without[::-1].tolist(), abs=1e-9)
    # Copies of whole groups, under the same label, change nothing across groups.
    if across:
        c = fastaniso.mean_cosine_interval(torch.cat((x, x)), torch.cat((labels, labels)), across=True)
        assert (c.mean, *c.interval) == pytest.approx((a.mean, *a.interval), abs=1e-9)


def test_groups_too_few_and_rows_left_out() -> None:
    two = fastaniso.mean_cosine_interval(X, GROUPS % 2)
    assert two.mean == pytest.approx(fastaniso.mean_cosine(X), abs=1e-7)
    assert all(math.isnan(value) for value in (two.standard_error, *two.interval))
    one = fastaniso.mean_cosine_interval(X, GROUPS * 0)
    assert math.isnan(one.without[0])
    none = fastaniso.mean_cosine_interval(X[:0], GROUPS[:0])
    assert (math.isnan(none.mean), none.groups) == (True, 0)
    x = X.clone()
    x[4] = 0
    with pytest.raises(InvalidRowsError, match="hidden: row 4 is zero"):
        fastaniso.mean_cosine_interval(x, GROUPS)
    kept = torch.arange(90) != 4
    omitted = fastaniso.mean_cosine_interval(x, GROUPS, invalid="omit")
    masked = fastaniso.mean_cosine_interval(x, GROUPS, mask=kept)
    alone = fastaniso.mean_cosine_interval(x[kept], GROUPS[kept])
    for each in (omitted, masked):
        assert (each.mean, *each.interval) == pytest.approx((alone.mean, *alone.interval), abs=1e-6)
    assert (omitted.dropped.zero, masked.dropped.masked) == (1, 1)
    with pytest.raises(TypeError, match="groups: expected integers"):
        fastaniso.mean_cosine_interval(X, GROUPS.double())


def test_an_interval_prints_and_goes_to_json() -> None:
    found = fastaniso.mean_cosine_interval(X, GROUPS)
    assert "5, taken to be independent" in str(found)
    plain = json.loads(found.to_json())
    assert plain["interval"] == {"low": found.interval.low, "high": found.interval.high}
    assert "without" not in plain
    assert "two groups" in str(fastaniso.mean_cosine_interval(X, GROUPS, across=True))
    assert student(4) == pytest.approx(2.776, rel=0.01)


def test_the_curve_by_hand(backend: str) -> None:
    x, seed = X.double(), 5
    found = fastaniso.subsample_curve(x, sizes=[20, 5, 9], repeats=4, seed=seed, backend=backend)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(seed))
    expected = [
        [mean_of(x[order[20 * repeat : 20 * repeat + size]], GROUPS, False) for repeat in range(4)]
        for size in (5, 9, 20)
    ]
    assert found.sizes == (5, 9, 20)
    np.testing.assert_allclose(found.values, expected, atol=1e-12)
    assert found.means == pytest.approx(np.mean(expected, axis=1).tolist())
    assert found.stds == pytest.approx(np.std(expected, axis=1, ddof=1).tolist())
    assert found.expected_std == pytest.approx(found.stds[-1] * math.sqrt(20 / 90))
    assert found.value == pytest.approx(fastaniso.mean_cosine(x))
    assert (found.n, found.repeats, found.metric) == (90, 4, "mean_cosine")


def test_blocks_and_dropped_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.cat((X, torch.zeros(3, 6), torch.full((2, 6), math.nan))).double()
    kept = torch.arange(95) < 90
    whole = fastaniso.subsample_curve(X.double())
    assert whole.sizes == (11,)
    for options in ({"mask": kept}, {"invalid": "omit"}):
        found = fastaniso.subsample_curve(x, **options)
        np.testing.assert_allclose(found.values, whole.values, atol=1e-12)
        assert found.value == pytest.approx(whole.value, abs=1e-12)
    monkeypatch.setattr(intervals, "_GATHERED", 6 * 4)
    np.testing.assert_allclose(fastaniso.subsample_curve(X.double()).values, whole.values, atol=1e-12)


def test_a_spectral_score_rises_with_the_rows() -> None:
    x = torch.randn(2000, 24, generator=torch.Generator().manual_seed(6))
    found = fastaniso.subsample_curve(x, "isoscore")
    assert found.sizes == (31, 62, 125, 250)
    assert list(found.means) == sorted(found.means)
    assert found.means[0] < 0.6 < 0.97 < found.value
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    assert found.values[-1, 0] == pytest.approx(isoscore(x[order[:250]]), abs=1e-5)
    uncentred = fastaniso.subsample_curve(x, ("participation_ratio", {"center": False}), repeats=2)
    assert "center=False" in uncentred.metric


def test_the_spread_of_subsets_tells_that_of_all_rows() -> None:
    generator = torch.Generator().manual_seed(7)
    curves, values = [], []
    for seed in range(60):
        x = torch.randn(400, 5, generator=generator) + 0.4
        found = fastaniso.subsample_curve(x, seed=seed)
        curves.append(found.expected_std)
        values.append(found.value)
    assert np.mean(curves) == pytest.approx(np.std(values), rel=0.25)


def test_default_sizes_are_halves() -> None:
    found = fastaniso.subsample_curve(torch.randn(1000, 3, generator=torch.Generator().manual_seed(8)))
    assert found.sizes == (31, 62, 125)
    assert fastaniso.subsample_curve(X, repeats=45).sizes == (2,)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "one repeat": ({"repeats": 1}, "repeats: expected an int of at least 2, got 1"),
    "more repeats than rows": ({"repeats": 50}, "hidden: expected at least 100 rows that count"),
    "too large": ({"sizes": [5, 12]}, "sizes: expected different sizes from 2 to 11"),
    "one row": ({"sizes": [1]}, "sizes: expected different sizes from 2 to 11"),
    "twice": ({"sizes": [5, 5]}, "sizes: expected different sizes"),
    "no size": ({"sizes": []}, "sizes: expected ints"),
    "half a row": ({"sizes": [4.5]}, "sizes: expected ints"),
    "no metric": ({"metric": "isoscor"}, "no metric 'isoscor'; did you mean isoscore"),
    "several numbers": ({"metric": "norms"}, "metric: 'norms' is several numbers"),
    "all pairs": ({"metric": "uniformity"}, "'uniformity' needs pairs, which subsample_curve does not have"),
    "invalid": ({"invalid": "skip"}, "invalid: expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options(case: str) -> None:
    options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        fastaniso.subsample_curve(X, **options)


def test_a_curve_prints_draws_and_goes_to_json() -> None:
    pytest.importorskip("matplotlib")
    found = fastaniso.subsample_curve(X, repeats=3)
    lines = str(found).splitlines()
    assert any(line.lstrip().startswith("all 90 rows") for line in lines)
    plain = json.loads(found.to_json())
    assert plain["sizes"] == list(found.sizes)
    assert "values" not in plain
    (axes,) = found.plot().axes
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mean ± std", "all rows"]
    with pytest.raises(ValueError, match="read-only"):
        found.values[0] = 0
