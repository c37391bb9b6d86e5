"""The pairs op: every instruction set × dtype × named case against float64 on the same rounded inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import pytest
import tolerance
import torch
from cases import CASES, DTYPES, make
from conftest import cpu_backends
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastaniso.ops import dispatch, reference
from fastaniso.rows import Rows, as_rows
from fastaniso.state import Pairs

EVERYTHING = {"bins": 256, "uniformity_t": (2.0, 0.5), "thresholds": (-0.2, 0.1, 0.5)}


def all_cosines(rows: Rows, other: Rows | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines of the pairs in float64 and the two indices of each."""
    theirs = (None, None) if other is None else (other.values, other.mask)
    cosines, i, j, _ = reference._cosines(rows.values, rows.mask, *theirs, 0, 0)
    i, j = i[:, None].expand(cosines.shape), j.expand(cosines.shape)
    chosen = i < j if other is None else torch.ones_like(i, dtype=torch.bool)
    return cosines[chosen], i[chosen], j[chosen]


def pivot_of(rows: Rows, other: Rows | None = None) -> float:
    """About where the kernel puts its pivot: the mean cosine of the first rows' pairs."""

    def first(of: Rows) -> Tensor:
        seen = of.values.new_ones(1, of.count, dtype=torch.bool) if of.mask is None else of.mask
        for stop in range(64, of.count + 64, 64):
            mask = seen.flatten() & (torch.arange(of.count) < stop)
            values, norms, _ = reference._keep(of.values, mask, 0)
            if len(values) > 1:
                break
        return (values / norms[:, None]) if of.count else of.values.new_zeros(0, of.dim).double()

    ours = first(rows)
    theirs = ours if other is None else first(other)
    if len(ours) < 2 or not len(theirs):
        return 0.0
    total, pairs = (ours @ theirs.T).sum(), len(ours) * len(theirs)
    mean = float(total / pairs if other is not None else (total - len(ours)) / (pairs - len(ours)))
    return round(mean * 2**16) / 2**16


@dataclass(frozen=True)
class Expected:
    rows: Rows
    other: Rows | None
    right: Pairs
    cosines: Tensor
    at: tuple[Tensor, Tensor]
    ordered: Tensor
    pivot: float

    @staticmethod
    def of(rows: Rows, other: Rows | None = None) -> Expected:
        right = dispatch.pairs(rows, other, **EVERYTHING, backend="reference")
        cosines, *at = all_cosines(rows, other)
        return Expected(rows, other, right, cosines, (at[0], at[1]), cosines.sort().values, pivot_of(rows, other))


def check(ours: Pairs, expected: Expected, dtype: torch.dtype) -> None:
    rows, right, cosines, (i, j) = expected.rows, expected.right, expected.cosines, expected.at
    one = tolerance.cosine(rows.dim, dtype)
    assert torch.equal(ours.counts, right.counts)
    assert ours.histogram is not None
    assert ours.histogram.sum() == ours.counts[0]

    ordered = expected.ordered
    edges = torch.linspace(-1, 1, 257, dtype=torch.float64)[1:-1]
    below = ours.histogram.cumsum(0)[:-1]
    # A cosine may be counted on the other side of an edge that it is within its error of.
    assert (below >= torch.searchsorted(ordered, edges - one)).all()
    assert (below <= torch.searchsorted(ordered, edges + one)).all()

    assert ours.moments is not None
    assert right.moments is not None
    bound = tolerance.pair_moments(cosines, expected.pivot, rows.dim, dtype)
    error = (ours.moments - right.moments).abs()
    assert (error <= bound).all(), f"{error / bound} times the bound"

    for t, sum_of_exponentials in zip(EVERYTHING["uniformity_t"], ours.exponentials, strict=True):
        exact = (2 * t * (cosines - 1)).exp()
        # The exponential passes on the error of what it is given and has one of its own.
        bound = ((2 * t * one + tolerance.SAFETY * 8 * tolerance.rounding(dtype)) * exact).sum()
        assert abs(sum_of_exponentials - exact.sum()) <= bound

    for threshold, count in zip(EVERYTHING["thresholds"], ours.above, strict=True):
        assert (cosines > threshold + one).sum() <= count <= (cosines > threshold - one).sum()

    assert ours.extrema is not None
    assert right.extrema is not None
    assert ours.extrema_at is not None
    if not len(cosines):
        assert ours.extrema.tolist() == [torch.inf, -torch.inf]
        assert ours.extrema_at.eq(-1).all()
        return
    assert ((ours.extrema - right.extrema).abs() <= one).all()
    for value, (row, other_row) in zip(ours.extrema, ours.extrema_at, strict=True):
        at = (i == row) & (j == other_row)
        assert at.sum() == 1
        assert abs(cosines[at] - value) <= one


@lru_cache(maxsize=1)
def expected_of(dtype: str, case: str) -> Expected:
    """The same for each instruction set, whose turns come together."""
    return Expected.of(as_rows(*make(case, dtype)))


@pytest.mark.parametrize("isa", cpu_backends(), indirect=True)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pairs(isa: str, dtype: str, case: str) -> None:
    expected = expected_of(dtype, case)
    check(dispatch.pairs(expected.rows, **EVERYTHING, backend="cpu"), expected, DTYPES[dtype])


@lru_cache(maxsize=1)
def expected_of_two(dtype: str, case: str) -> tuple[Expected, Expected]:
    values, mask = make(case, dtype)
    rows = as_rows(values, mask)
    theirs = torch.randn(131, rows.dim, generator=torch.Generator().manual_seed(7)) + 0.2
    theirs[5] = 0
    other = as_rows(theirs.to(values.dtype), torch.arange(131) % 7 != 3)
    return Expected.of(rows, other), Expected.of(other, rows)


@pytest.mark.parametrize("isa", cpu_backends(), indirect=True)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pairs_between_two_sets(isa: str, dtype: str, case: str) -> None:
    for expected in expected_of_two(dtype, case):
        ours = dispatch.pairs(expected.rows, expected.other, **EVERYTHING, backend="cpu")
        check(ours, expected, DTYPES[dtype])


def test_counts_add_up_for_every_number_of_rows(isa: str) -> None:
    hidden = torch.randn(300, 5)
    for n in range(2, 301):
        state = dispatch.pairs(as_rows(hidden[:n]), bins=64, moments=False, backend="cpu")
        assert state.histogram is not None
        assert state.histogram.sum() == state.counts[0] == n * (n - 1) // 2


@pytest.mark.parametrize("dim", [1, 2, 3, 15, 16, 17, 31, 383, 384, 385, 2000])
@pytest.mark.parametrize("bins", [64, 8192])
def test_bins_pending_from_the_last_tile_are_counted_for_any_dim(isa: str, dim: int, bins: int) -> None:
    state = dispatch.pairs(as_rows(torch.randn(205, dim)), bins=bins, backend="cpu")
    assert state.histogram is not None
    assert state.histogram.sum() == 205 * 204 // 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_cosines_of_exactly_one_and_minus_one(isa: str, dtype: str) -> None:
    rows = torch.zeros(60, 12, dtype=DTYPES[dtype])
    rows[:, 3] = torch.where(torch.arange(60) % 3 == 0, -2.0, 4.0)  # 20 of one sign, 40 of the other
    state = dispatch.pairs(as_rows(rows), **EVERYTHING, backend="cpu")
    assert state.histogram is not None
    assert state.extrema is not None
    assert state.extrema_at is not None
    assert state.histogram[0] == 20 * 40
    assert state.histogram[-1] == 20 * 19 // 2 + 40 * 39 // 2
    assert state.extrema.tolist() == [-1, 1]
    # Of many equal pairs, the first in order of (i, j).
    assert state.extrema_at.tolist() == [[0, 1], [0, 3]]


def test_the_first_of_equal_extremes_wherever_it_lies(isa: str) -> None:
    # One-hot rows: all cosines 0 but for three pairs of equal rows, spread over tiles and blocks.
    rows = torch.eye(1100)
    for i, j in ((700, 1099), (30, 1000), (31, 50)):
        rows[j] = rows[i]
    state = dispatch.pairs(as_rows(rows), backend="cpu")
    assert state.extrema is not None
    assert state.extrema_at is not None
    assert state.extrema.tolist() == [0, 1]
    assert state.extrema_at.tolist() == [[0, 1], [30, 1000]]


def test_only_what_was_asked_for(isa: str) -> None:
    rows = as_rows(torch.randn(120, 21))
    everything = dispatch.pairs(rows, **EVERYTHING, backend="cpu")
    for part in (
        {"bins": 256},
        {"moments": True},
        {"extrema": True},
        {"uniformity_t": (2.0, 0.5)},
        {"thresholds": (-0.2, 0.1, 0.5)},
    ):
        state = dispatch.pairs(rows, **{"moments": False, "extrema": False, **part}, backend="cpu")
        for name in Pairs._tensors:
            given = getattr(state, name)
            assert given is None or not given.numel() or torch.equal(given, getattr(everything, name)), name
        assert sum(getattr(state, n) is not None and getattr(state, n).numel() > 0 for n in Pairs._tensors[1:6]) == 1


def test_a_collapsed_cloud_has_the_spread_it_has() -> None:
    # 1 − mean = 9e-6: powers about 0 in float32 would leave nothing of a std of 2e-6.
    rows = as_rows((10 + 3e-2 * torch.randn(900, 48, dtype=torch.float64)).float())
    ours, right = (dispatch.pairs(rows, backend=backend).moments for backend in ("cpu", "reference"))
    assert ours is not None
    assert right is not None
    assert abs(ours[1] / right[1] - 1) < 0.01  # cosines near 1 are rounded to 6e-8


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 150), cut=st.integers(1, 149), dim=st.integers(1, 40))
def test_blocks_merge_to_the_whole(seed: int, n: int, cut: int, dim: int) -> None:
    hidden = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))
    hidden[seed % n] *= seed % 3  # at times a zero row
    cut = min(cut, n - 1)
    first, last = as_rows(hidden[:cut]), as_rows(hidden[cut:])
    named = {**EVERYTHING, "backend": "cpu", "source": "rows"}
    merged = dispatch.pairs(last, **named, start=cut)
    merged = merged.merge(dispatch.pairs(first, last, **named, other_source="rows", other_start=cut))
    merged = merged.merge(dispatch.pairs(first, **named))
    whole = dispatch.pairs(as_rows(hidden), **EVERYTHING, backend="cpu")
    for name in ("histogram", "above", "extrema", "extrema_at"):
        assert torch.equal(getattr(merged, name), getattr(whole, name)), name
    assert torch.equal(merged.counts[:3], whole.counts[:3])
    assert merged.counts[3:].min() == whole.counts[3]
    # Each part has a pivot of its own, and where cosines are alike so are the roundings.
    torch.testing.assert_close(merged.moments, whole.moments, rtol=1e-6, atol=4e-7 * n * n)
    torch.testing.assert_close(merged.exponentials, whole.exponentials, rtol=1e-6, atol=1e-6)
    assert merged.coverage.area("rows", (0, n), "rows", (0, n)) == cut * n + (n - cut) ** 2


def test_one_pair_has_no_spread(isa: str) -> None:
    moments = dispatch.pairs(as_rows(torch.randn(2, 30)), backend="cpu").moments
    assert moments is not None
    assert moments[1] < 1e-15


def test_more_pairs_than_fit_in_32_bits() -> None:
    n = 93_000
    state = dispatch.pairs(as_rows(torch.ones(1, 1).expand(n, 1)), bins=64, moments=False, extrema=False)
    assert state.histogram is not None
    assert state.histogram[-1] == state.counts[0] == n * (n - 1) // 2 > 2**32


def test_opcheck() -> None:
    hidden, other = torch.randn(2, 5, 6), torch.randn(1, 7, 6)
    mask = torch.rand(2, 5) > 0.3
    for arguments in (
        (hidden, mask, None, None, 64, True, True, [2.0], [0.5], 0, 0, "exact", "cpu"),
        (hidden, None, other, None, 0, False, False, [], [], 3, 4, "fast", "cpu"),
    ):
        torch.library.opcheck(torch.ops.fastaniso.pairs.default, arguments)
