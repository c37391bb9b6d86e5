"""pairs and the functions beside it: every statistic against brute force, and what is refused."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cases import CASES, make
from torch import Tensor

import fastaniso
from fastaniso import InvalidRowsError, PairStatistics
from fastaniso.ops import reference
from fastaniso.progress import Progress
from fastaniso.result import Dropped
from fastaniso.statistics.pairs import cosine_error, pair_statistics

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)) + 0.3
Y = torch.randn(35, 6, generator=torch.Generator().manual_seed(1)) - 0.1
BACKENDS = ("reference", "cpu")
THRESHOLDS = (-0.3, 0.0, 0.42)
SIMPLE = ("cosine_histogram", "cosine_extrema", "uniformity", "pairs")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu":
        pytest.importorskip("fastaniso._cpu")
    return str(request.param)


def all_cosines(
    x: Tensor, other: Tensor | None = None, mask: Tensor | None = None, other_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The cosine of each pair in float64, and its two rows."""
    rows, others = (None if t is None else t.reshape(1, -1, t.shape[-1]) for t in (x, other))
    masks = (None if m is None else m.reshape(1, -1) for m in (mask, other_mask))
    assert rows is not None
    own_mask, other_masks = masks
    cosines, i, j, _ = reference._cosines(rows, own_mask, others, other_masks, 0, 0)
    i, j = i[:, None].expand(cosines.shape), j.expand(cosines.shape)
    chosen = i < j if other is None else torch.ones_like(i, dtype=torch.bool)
    return cosines[chosen], i[chosen], j[chosen]


def variance_error(result: PairStatistics, std: float) -> float:
    """Every cosine may be off by the error; its square about a pivot, at most 2 away, is rounded when it is added."""
    return 4 * result.cosine_error * (std + result.cosine_error) + 4 * 4 * rounding(result)


def rounding(result: PairStatistics) -> float:
    return 2.0**-53 if "float64 rows" in result.provenance[0] else 2.0**-24


def check(result: PairStatistics, cosines: Tensor, i: Tensor, j: Tensor) -> None:
    """Every value, to within what rounding of the products can do to it."""
    error = result.cosine_error
    c = cosines.numpy()
    counts, edges = result.histogram
    assert counts.dtype == np.int64
    assert counts.sum() == result.pairs == len(c)
    if not len(c):
        for value in (result.mean, result.std, result.uniformity, result.mean_abs, result.quantile(0.5).value):
            assert value is not None
            assert math.isnan(value)
        assert result.min is not None
        assert (math.isnan(result.min.value), *result.min[1:]) == (True, -1, -1)
        return
    assert result.mean == pytest.approx(c.mean(), abs=error)
    assert result.mean_abs == pytest.approx(np.abs(c).mean(), abs=error)
    assert result.std is not None
    assert abs(result.std**2 - c.var()) <= variance_error(result, c.std())
    if c.std() > 100 * error:
        centred = (c - c.mean()) / c.std()
        relative, pivot = 20 * error / c.std(), 2 / c.std()
        third = relative * (centred**4).mean() + 16 * rounding(result) * pivot**3
        fourth = relative * np.abs(centred**5).mean() + 16 * rounding(result) * pivot**4
        assert result.skewness == pytest.approx((centred**3).mean(), abs=third)
        assert result.kurtosis == pytest.approx((centred**4).mean() - 3, abs=fourth)
    assert result.uniformity == pytest.approx(
        np.log(np.exp(2 * result.uniformity_t * (c - 1)).mean()), abs=2 * result.uniformity_t * error + 1e-6
    )
    for extreme, expected in ((result.min, c.min()), (result.max, c.max())):
        assert extreme is not None
        assert extreme.value == pytest.approx(expected, abs=error)
        (at,) = torch.nonzero((i == extreme.i) & (j == extreme.j)).flatten().tolist()
        assert c[at] == pytest.approx(expected, abs=2 * error)
    q = np.linspace(0, 1, 41)
    found = result.quantile(q)
    assert (np.abs(found.value - np.quantile(c, q, method="inverted_cdf")) <= found.bound).all()
    assert (found.bound <= 1 / len(result.histogram) + error + 1e-15).all()
    for t in (*result.thresholds, *edges[::20], 0.1234):
        share = result.share_above(t)
        assert (c > t + error).mean() - share.bound <= share.value <= (c >= t - error).mean() + share.bound
        assert share.bound == 0 or t not in (*result.thresholds, *edges)


@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_pairs(case: str, dtype: str, backend: str) -> None:
    hidden, mask = make(case, dtype)
    hidden, mask = hidden[:400], None if mask is None else mask[:400]
    result = fastaniso.pairs(
        hidden, mask=mask, bins=256, thresholds=THRESHOLDS, uniformity_t=1.5, invalid="omit", backend=backend
    )
    check(result, *all_cosines(hidden, mask=mask))
    assert result.exact
    assert result.dropped.masked == (0 if mask is None else int((~mask).sum()))
    assert result.n == hidden.shape[0] - sum(vars(result.dropped).values())


def test_pairs_of_two_sets(backend: str) -> None:
    mask, other_mask = torch.arange(60) % 4 > 0, torch.arange(35) % 5 > 0
    result = fastaniso.pairs(
        X, Y, mask=mask, other_mask=other_mask, bins=128, thresholds=THRESHOLDS, uniformity_t=3.0, backend=backend
    )
    check(result, *all_cosines(X, Y, mask, other_mask))
    assert (result.n, result.others, result.pairs) == (45, 28, 45 * 28)
    assert result.dropped_others is not None
    assert (result.dropped.masked, result.dropped_others.masked) == (15, 7)


def test_more_rows_than_a_block(backend: str) -> None:
    n = {"reference": 1100, "cpu": 16_500}[backend]
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(2))
    result = fastaniso.pairs(x, backend=backend)
    assert result.pairs == n * (n - 1) // 2 == result.histogram.pairs
    assert result.mean == pytest.approx(fastaniso.mean_cosine(x, backend=backend), abs=1e-7)
    assert result.std == pytest.approx(fastaniso.cosine_std(x, backend=backend), abs=1e-7)
    assert result.min is not None
    assert result.max is not None
    units = torch.nn.functional.normalize(x.double(), dim=1)
    for extreme in (result.min, result.max):
        assert extreme.i < extreme.j
        assert units[extreme.i] @ units[extreme.j] == pytest.approx(extreme.value, abs=1e-6)
    found, indices = fastaniso.nearest_neighbors(x, 1, backend=backend)
    assert found.max().item() == pytest.approx(result.max.value, abs=1e-6)
    assert indices[result.max.i, 0] == result.max.j


@pytest.mark.parametrize("case", ["isotropic", "drifted", "one_huge_dimension", "odd_d", "masked"])
@pytest.mark.parametrize("dtype", ["f32", "f64", "f16"])
def test_two_roads_to_one_number(case: str, dtype: str, backend: str) -> None:
    """Mean and std of all products one by one, and from sums of unit rows in which no pair is formed."""
    hidden, mask = make(case, dtype)
    result = fastaniso.pairs(hidden, mask=mask, backend=backend)
    other_road = {"mask": mask, "backend": backend}
    assert result.mean == pytest.approx(fastaniso.mean_cosine(hidden, **other_road), abs=result.cosine_error)
    assert result.std == pytest.approx(fastaniso.cosine_std(hidden, **other_road), abs=2 * result.cosine_error)


def test_each_function_gives_what_pairs_gives(backend: str) -> None:
    for sets, masks in (((X,), {}), ((X, Y), {"other_mask": torch.arange(35) % 2 > 0})):
        whole = fastaniso.pairs(*sets, **masks, bins=512, uniformity_t=0.7, backend=backend)
        other = sets[1:]
        histogram = fastaniso.cosine_histogram(*sets, **masks, bins=512, backend=backend)
        assert np.array_equal(histogram.total, whole.histogram.total)
        quantiles = fastaniso.cosine_quantiles(X, [0, 0.3, 1], *other, **masks, bins=512, backend=backend)
        assert quantiles.value.tolist() == whole.quantile([0, 0.3, 1]).value.tolist()
        assert fastaniso.cosine_extrema(*sets, **masks, backend=backend) == (whole.min, whole.max)
        assert fastaniso.uniformity(*sets, **masks, t=0.7, backend=backend) == whole.uniformity


def test_known_values(backend: str) -> None:
    x = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 2]] * torch.tensor([[2.0], [3], [1], [-1]])
    x = torch.cat((x, -x[:1]))
    result = fastaniso.pairs(x, bins=64, thresholds=(0.0, 0.5, 1.0, -1.0), backend=backend)
    # One pair of 1, two of −1, seven of 0.
    counts, _ = result.histogram
    assert (counts[0], counts[32], counts[63], counts.sum()) == (2, 7, 1, 10)
    assert [share.value for share in result.shares_above] == [0.1, 0.1, 0, 0.8]
    assert result.mean == pytest.approx(-0.1)
    assert result.mean_abs == pytest.approx(0.3)
    assert result.std == pytest.approx(math.sqrt(0.3 - 0.01))
    assert (result.min, result.max) == ((-1, 0, 4), (1, 0, 1))
    assert result.uniformity == pytest.approx(math.log((2 * math.exp(-8) + 7 * math.exp(-4) + 1) / 10))
    assert (result.quantile(0).value, result.quantile(1).value) == (-1, 1)


def test_equal_extremes_are_the_first(backend: str) -> None:
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(3))
    extrema = fastaniso.cosine_extrema(torch.cat((x, x, -x)), backend=backend)
    assert extrema.max[1:] == (0, 5)
    assert extrema.min[1:] == (0, 10)


def test_inputs_of_every_kind_agree(backend: str) -> None:
    expected = fastaniso.pairs(X, backend=backend)
    wide = torch.randn(60, 9)
    wide[:, 2:8] = X
    sliced = torch.cat((torch.zeros(4, 1, 6), X.view(4, 15, 6)), 1)[:, 1:]
    for hidden in (X.view(4, 15, 6), X.numpy(), X.clone().requires_grad_(), wide[:, 2:8], sliced):
        again = fastaniso.pairs(hidden, backend=backend)
        assert again.to_dict() == expected.to_dict()
        assert np.array_equal(again.histogram.total, expected.histogram.total)


def test_rows_without_a_direction_are_told_before_the_run(backend: str) -> None:
    hidden = X.view(4, 15, 6).clone()
    hidden[1, 2], hidden[2, 0, 3] = 0, math.nan
    calls: list[Progress] = []
    for name in SIMPLE:
        with pytest.raises(InvalidRowsError, match=r"hidden: row 17 is the first that .* invalid='omit'"):
            getattr(fastaniso, name)(hidden, progress=calls.append, backend=backend)
        with pytest.raises(InvalidRowsError, match=r"other: row 17"):
            getattr(fastaniso, name)(X, hidden, progress=calls.append, backend=backend)
    assert calls == []
    result = fastaniso.pairs(hidden, invalid="omit", backend=backend)
    assert (result.n, vars(result.dropped)) == (58, {"masked": 0, "zero": 1, "nonfinite": 1})
    check(result, *all_cosines(hidden))


@pytest.mark.parametrize("n", [0, 1])
def test_without_pairs(n: int, backend: str) -> None:
    result = fastaniso.pairs(X[:n], thresholds=(0.5,), backend=backend)
    check(result, *all_cosines(X[:n]))
    assert math.isnan(result.share_above(0.5).value)
    assert math.isnan(fastaniso.uniformity(X[:n], backend=backend))
    assert fastaniso.cosine_histogram(X[:n], backend=backend).pairs == 0
    assert math.isnan(fastaniso.pairs(X[:n], Y, backend=backend).mean or math.nan) == (n == 0)
    assert "nan" in str(result)
    assert json.loads(result.to_json())["mean"] is None


OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "too few bins": ({"bins": 63}, ValueError, "bins: expected an int from 64 to 8192, got 63"),
    "half a bin": ({"bins": 64.5}, ValueError, "bins: expected an int"),
    "a threshold that is none": ({"thresholds": (0.5, 1.2)}, ValueError, "thresholds: expected cosines from -1 to 1"),
    "nan": ({"thresholds": [math.nan]}, ValueError, "thresholds: expected cosines"),
    "no t": ({"uniformity_t": 0}, ValueError, "uniformity_t: expected a number above 0 and up to 20, got 0"),
    "a t without digits": ({"uniformity_t": 21}, ValueError, "uniformity_t: expected"),
    "no sample": ({"sample": 0}, ValueError, "sample: expected a number of pairs .* got 0"),
    "a relative error of 1": ({"sample": 1.0}, ValueError, "sample: expected"),
    "a sample by name": ({"sample": True}, ValueError, "sample: expected"),
    "unknown invalid": ({"invalid": "drop"}, ValueError, "invalid: expected 'raise' or 'omit'"),
    "unknown backend": ({"backend": "mkl"}, ValueError, "backend: expected one of"),
    "a mask of nothing": ({"other_mask": torch.ones(60, dtype=torch.bool)}, ValueError, "other_mask: given without"),
    "other numbers": ({"other": Y[:, :5]}, ValueError, "other: expected rows of 6 numbers as in hidden, got 5"),
    "another dtype": ({"other": Y.double()}, TypeError, r"other: expected float32 as in hidden, got float64; .*\.to"),
    "another device": ({"other": Y.to("meta")}, ValueError, "other: expected it on cpu beside hidden, got meta"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_unusable_options_say_why(case: str) -> None:
    options, error, message = OPTIONS[case]
    with pytest.raises(error, match=message):
        fastaniso.pairs(X, **options)


def test_memory_limit() -> None:
    for name in SIMPLE:
        with pytest.raises(MemoryError, match=r"memory_limit: 1 kB given, and the cpu kernel needs .*fewer bins"):
            getattr(fastaniso, name)(X, memory_limit="1 kB")
        getattr(fastaniso, name)(X, memory_limit="30 MB")


@pytest.mark.parametrize("name", SIMPLE)
def test_progress(name: str) -> None:
    x, calls = torch.randn(1100, 3), []
    getattr(fastaniso, name)(x, backend="reference", progress=calls.append)
    assert len(calls) == 6  # blocks of 512 rows: three, and six tiles
    assert [call.done for call in calls] == sorted(call.done for call in calls)
    assert (calls[-1].done, calls[-1].share, calls[-1].unit) == (1100 * 1099 // 2, 1.0, "pairs")


def test_the_bar_is_drawn_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    fastaniso.pairs(X, progress=True)
    assert capsys.readouterr().out == ""


def test_an_interruption_ends_the_run() -> None:
    calls = 0

    def interrupt(_: Progress) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fastaniso.pairs(torch.randn(1100, 3), backend="reference", progress=interrupt)
    assert calls == 2


@pytest.mark.alone
@pytest.mark.parametrize("name", ["pairs", "nearest_neighbors", "a sample"])
def test_ctrl_c_is_prompt(name: str) -> None:
    pytest.importorskip("fastaniso._cpu")
    x = torch.randn(150_000, 64)  # some seconds, in tiles of more than one
    call: dict[str, Callable[[], object]] = {
        "pairs": lambda: fastaniso.pairs(x),
        "nearest_neighbors": lambda: fastaniso.nearest_neighbors(x, 10),
        "a sample": lambda: fastaniso.pairs(x, sample=4 * 10**9),
    }
    sent = 0.0

    def interrupt() -> None:
        nonlocal sent
        sent = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            call[name]()
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert time.perf_counter() - sent < 1.5


def test_threads_do_not_change_a_bit() -> None:
    x = torch.randn(3000, 48)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(fastaniso.pairs(x))
    finally:
        torch.set_num_threads(threads)
    assert results[0].to_dict() == results[1].to_dict()
    assert np.array_equal(results[0].histogram.total, results[1].histogram.total)


def test_more_pairs_than_fit_in_32_bits() -> None:
    """A state as of a million rows, made without them: 4 in 5 pairs at 0.6, the others at −0.4."""
    pairs = 10**6 * (10**6 - 1) // 2
    high = pairs // 5 * 4
    histogram = torch.zeros(2048, dtype=torch.int64)
    histogram[1638], histogram[614] = high, pairs - high
    state = replace(
        fastaniso.Pairs.empty(8, bins=2048, thresholds=(0.0,)),
        counts=torch.tensor([pairs, 0, 0, 0, 0]),
        histogram=histogram,
        above=torch.tensor([high]),
        moments=torch.tensor([0.4 * pairs, 0.16 * pairs, -0.096 * pairs, 0.0832 * pairs, 0.56 * pairs]).double(),
    )
    result = pair_statistics(state, n=10**6, dropped=Dropped(0, 0, 0))
    assert result.pairs == result.histogram.pairs == pairs
    assert result.shares_above[0].value == high / pairs
    assert result.quantile([0.1, 0.3]).value.tolist() == pytest.approx([-0.4, 0.6], abs=1e-3)
    assert (result.mean, result.std, result.mean_abs) == pytest.approx((0.4, 0.4, 0.56))
    assert (result.skewness, result.kurtosis) == pytest.approx((-1.5, 0.25))


def test_the_table_and_the_dict() -> None:
    result = fastaniso.pairs(X, Y, thresholds=(0.5,))
    text = str(result)
    for label in ("other rows", "mean cosine", "excess kurtosis", "50% quantile", "share above 0.5", "uniformity"):
        assert label in text, label
    content = json.loads(result.to_json())
    assert result.max is not None
    assert content["max"] == result.max._asdict()
    assert content["quantiles"]["0.5"]["bound"] == result.quantile(0.5).bound
    assert content["shares_above"] == [{"value": result.share_above(0.5).value, "bound": 0.0, "interval": None}]
    assert content["exact"] is True
    assert content["accumulator"] == "float64 sums, int64 counts"
    assert content["provenance"] == ["float32 rows, cpu kernel"]
    assert set(content["conventions"]) >= {"mean", "std", "skewness", "kurtosis", "quantiles", "uniformity"}


@pytest.mark.parametrize("options", [{}, {"thresholds": (0.2, 0.99)}, {"other": Y}])
def test_the_plot(options: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    drawn = fastaniso.pairs(X, **options).plot()
    assert [axes.get_title(loc="left") for axes in drawn.axes] == [
        "Distribution of the cosine",
        "Share of pairs above",
    ]
    drawn.draw_without_rendering()


def test_the_plot_of_no_pair() -> None:
    pytest.importorskip("matplotlib")
    fastaniso.pairs(X[:1]).plot().draw_without_rendering()


def test_a_collapsed_cloud_keeps_its_digits_in_float64(backend: str) -> None:
    x = 10 + 1e-2 * torch.randn(300, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    assert fastaniso.pairs(x, backend=backend).std == pytest.approx(fastaniso.cosine_std(x, backend=backend), rel=1e-8)


def test_precision_is_checked_and_changes_nothing_on_a_cpu() -> None:
    x = torch.randn(50, 7)
    with pytest.raises(ValueError, match="precision: expected 'exact' or 'fast', got 'tf32'"):
        fastaniso.pairs(x, precision="tf32")
    with pytest.raises(ValueError, match="precision: expected 'exact' or 'fast', got None"):
        fastaniso.nearest_neighbors(x, 2, precision=None)
    exact, fast = (fastaniso.pairs(x, precision=precision, sample=None) for precision in ("exact", "fast"))
    assert exact.to_dict() == fast.to_dict()
    exact_nearest, fast_nearest = (fastaniso.nearest_neighbors(x, 2, precision=p) for p in ("exact", "fast"))
    assert torch.equal(exact_nearest.cosines, fast_nearest.cosines)


def test_the_bound_of_fast_products_is_theirs() -> None:
    name = "float32 rows, triton kernel"
    exact, fast = (cosine_error(768, frozenset({each})) for each in (name, f"{name}, fast"))
    assert 2.0**-10 < fast < 2.0**-10 + 2 * exact
