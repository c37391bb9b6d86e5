"""Every statistic against brute force on hard inputs with names, and values known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import brute_force
import pytest
import torch
from torch import Tensor

import fastaniso

BACKENDS = ("reference", "cpu")


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _one_huge_dimension() -> Tensor:
    x = _random(60, 9)
    x[:, 4] += 50
    return x


CASES: dict[str, Callable[[], Tensor]] = {
    "isotropic": lambda: _random(60, 8),
    "collapsed": lambda: _random(1, 16) * 10 + _random(40, 16, seed=1) * 1e-2,
    "rank_one": lambda: _random(50, 1) * _random(1, 7, seed=1),
    "one_huge_dimension": _one_huge_dimension,
    "tiny_norms": lambda: _random(40, 6) * 1e-30,
    "huge_norms": lambda: _random(40, 6) * 1e30,
    "mixed_norms": lambda: _random(40, 6) * 10 ** (_random(40, 1, seed=1) * 8),
    "n_2": lambda: _random(2, 5),
    "odd_d": lambda: _random(31, 13),
    "d_1": lambda: _random(20, 1),
    "duplicates": lambda: _random(10, 6).repeat(4, 1),
    "antipodal": lambda: torch.cat((_random(20, 6), -_random(20, 6))),
}
# float32 rows: errors of the inverse norms are divided out by Σ‖u‖², and unit rows are summed about a pivot, so what is
# left is one rounding of a number of u, 2⁻²⁴; float64 rows round at 2⁻⁵³, the brute force at d·2⁻⁵³.
ABSOLUTE = {torch.float64: 1e-14, torch.float32: 2**-24}


@pytest.fixture(params=CASES)
def rows(request: pytest.FixtureRequest) -> Tensor:
    return CASES[request.param]()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu":
        pytest.importorskip("fastaniso._cpu")
    return str(request.param)


@pytest.fixture(params=[torch.float64, torch.float32], ids=["f64", "f32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def test_mean_cosine(rows: Tensor, backend: str, dtype: torch.dtype) -> None:
    rows = rows.to(dtype)
    expected = brute_force.cosines(rows).mean().item()
    assert fastaniso.mean_cosine(rows, backend=backend) == pytest.approx(expected, rel=0, abs=ABSOLUTE[dtype])


def test_cosine_std(rows: Tensor, backend: str, dtype: torch.dtype) -> None:
    rows = rows.to(dtype)
    expected = brute_force.cosine_std(rows)
    # The std moves by what a cosine moves; one that is zero comes out as the root of a rounded zero.
    floor = 1e-7 if dtype == torch.float64 else 1e-3
    if expected > 1e-3:
        floor = 10 * ABSOLUTE[dtype]
    assert fastaniso.cosine_std(rows, backend=backend) == pytest.approx(expected, rel=0, abs=floor)


@pytest.mark.parametrize("n", [3, 50, 300])
def test_std_of_a_collapsed_cloud_keeps_its_digits(n: int, backend: str) -> None:
    """Cosines of .999999 ± 1e-7: E[c²] − mean² in float64 would keep two digits of the variance, at best."""
    rows = 10 * _random(1, 64) / 8 + 1e-2 / 8 * _random(n, 64, seed=1) * (1 + 0.1 * _random(n, 1, seed=2))
    expected = brute_force.cosine_std(rows)
    assert expected < 4e-7
    assert fastaniso.cosine_std(rows, backend=backend) == pytest.approx(expected, rel=1e-8)
    assert 1 - fastaniso.mean_cosine(rows, backend=backend) == pytest.approx(
        brute_force.one_minus_cosines(rows).mean().item(), abs=1e-14
    )


def test_between_two_sets(backend: str) -> None:
    x, y = _random(30, 7) + 0.5, _random(20, 7, seed=1) - 0.2
    cosines = brute_force.units(x) @ brute_force.units(y).T
    assert fastaniso.mean_cosine(x, y, backend=backend) == pytest.approx(cosines.mean().item(), abs=1e-14)
    assert fastaniso.cosine_std(x, y, backend=backend) == pytest.approx(cosines.std(correction=0).item(), abs=1e-14)
    keep = torch.arange(20) % 3 > 0
    masked = fastaniso.mean_cosine(x, y, other_mask=keep, backend=backend)
    assert masked == pytest.approx(cosines[:, keep].mean().item(), abs=1e-14)


def test_dimension_contributions(rows: Tensor, backend: str, dtype: torch.dtype) -> None:
    rows = rows.to(dtype)
    result = fastaniso.dimension_contributions(rows, backend=backend)
    expected = brute_force.contributions(rows)
    tolerance = ABSOLUTE[dtype]
    torch.testing.assert_close(torch.tensor(result.values), expected, rtol=0, atol=tolerance)
    assert result.values.sum() == pytest.approx(result.mean_cosine, abs=tolerance)
    top = result.top(2)
    assert top.values.tolist() == sorted(result.values.tolist(), reverse=True)[:2]
    assert result.values[top.indices].tolist() == top.values.tolist()
    rest = expected.sort().values[: max(len(expected) - 3, 0)].sum().item()
    assert result.mean_without_top(3) == pytest.approx(rest, abs=10 * tolerance)


def test_a_huge_dimension_carries_the_mean() -> None:
    result = fastaniso.dimension_contributions(CASES["one_huge_dimension"]())
    assert result.top(1).indices.tolist() == [4]
    assert result.mean_cosine > 0.99
    assert abs(result.mean_without_top(1)) < 1e-2


def test_group_cosine(backend: str) -> None:
    x = _random(60, 6) + 0.4
    labels = torch.tensor([-7, 3, 10**12])[torch.arange(60) % 7 % 3]
    result = fastaniso.group_cosine(x, labels, backend=backend)
    assert result.labels.tolist() == [-7, 3, 10**12]
    assert result.counts.tolist() == [(labels == label).sum().item() for label in result.labels.tolist()]
    by_label = [brute_force.units(x[labels == label]) for label in result.labels.tolist()]
    for a, u in enumerate(by_label):
        assert result.within[a] == pytest.approx(brute_force.cosines(u).mean().item(), abs=1e-14)
        for b, v in enumerate(by_label):
            expected = result.within[a] if a == b else (u @ v.T).mean().item()
            assert result.between[a, b] == pytest.approx(expected, abs=1e-14)
    within, between = brute_force.within_between(x, labels)
    assert (result.pooled_within, result.pooled_between) == pytest.approx((within, between), abs=1e-14)


def test_groups_of_one_row_and_masked_labels(backend: str) -> None:
    x = _random(6, 4)
    labels = torch.tensor([5, 5, 8, -100, -100, 5])
    result = fastaniso.group_cosine(x, labels, mask=labels >= 0, backend=backend)
    assert result.labels.tolist() == [5, 8]
    assert result.counts.tolist() == [3, 1]
    assert math.isnan(result.within[1])
    assert result.pooled_within == pytest.approx(result.within[0])
    assert result.dropped.masked == 2
    one = fastaniso.group_cosine(x, torch.zeros(6, dtype=torch.int32), backend=backend)
    assert math.isnan(one.pooled_between)
    assert one.pooled_within == pytest.approx(fastaniso.mean_cosine(x, backend=backend), abs=1e-14)


@pytest.mark.filterwarnings("ignore:spectral scores")
@pytest.mark.parametrize("case", [name for name in CASES if name not in ("d_1", "mixed_norms")])
def test_spectral_scores(case: str, backend: str) -> None:
    x = CASES[case]()
    assert fastaniso.participation_ratio(x, backend=backend) == pytest.approx(
        brute_force.participation_ratio(x), rel=1e-9
    )
    assert fastaniso.isoscore(x, backend=backend) == pytest.approx(brute_force.isoscore(x), abs=1e-9)
    for center in (False, True):
        # Eigenvalues are roots of squares: a zero singular value comes back as 1e-8 of the largest, at worst.
        assert fastaniso.effective_rank(x, center=center, backend=backend) == pytest.approx(
            brute_force.effective_rank(x, center=center), rel=1e-5
        )


@pytest.mark.filterwarnings("ignore:spectral scores")
def test_spectral_scores_of_rank_one() -> None:
    x = CASES["rank_one"]()
    assert fastaniso.effective_rank(x) == pytest.approx(1, abs=1e-12)
    assert fastaniso.participation_ratio(x) == pytest.approx(1, abs=1e-12)
    assert fastaniso.isoscore(x) == pytest.approx(0, abs=1e-12)


@pytest.mark.filterwarnings("ignore:spectral scores")
def test_spectral_scores_without_spread_are_undefined() -> None:
    same = torch.ones(40, 3)
    assert math.isnan(fastaniso.participation_ratio(same))
    assert math.isnan(fastaniso.isoscore(same))
    assert math.isnan(fastaniso.effective_rank(same, center=True))
    assert fastaniso.effective_rank(same) == pytest.approx(1)
    assert math.isnan(fastaniso.isoscore(torch.randn(40, 1)))


def test_few_rows_warn() -> None:
    with pytest.warns(UserWarning, match=r"spectral scores of 79 rows of dimension 8 .* at least 80 rows") as caught:
        fastaniso.participation_ratio(_random(79, 8))
    assert caught[0].filename == __file__
    fastaniso.participation_ratio(_random(80, 8))


@pytest.mark.filterwarnings("ignore:spectral scores")
@pytest.mark.parametrize("n", [100, 300, 3000])
def test_isotropic_rows_score_what_their_number_allows(n: int) -> None:
    """The participation ratio of n isotropic rows is 1/(1/n + 1/d), however isotropic the source."""
    d = 128
    limit = 1 / (1 / n + 1 / d)
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    assert fastaniso.participation_ratio(x) == pytest.approx(limit, rel=0.04)
    assert fastaniso.isoscore(x) == pytest.approx((limit - 1) / (d - 1), rel=0.04)


def test_drift_and_norms(rows: Tensor, backend: str) -> None:
    lengths = torch.linalg.vector_norm(rows, dim=1)
    drift = fastaniso.drift(rows, backend=backend)
    assert drift.norm_of_mean == pytest.approx(torch.linalg.vector_norm(rows.mean(0)).item(), rel=1e-9)
    assert drift.relative == pytest.approx(drift.norm_of_mean / lengths.mean().item(), rel=1e-9)
    assert drift.unit == pytest.approx(torch.linalg.vector_norm(brute_force.units(rows).mean(0)).item(), abs=1e-9)
    norms = fastaniso.norms(rows, backend=backend)
    assert (norms.mean, norms.min, norms.max) == pytest.approx(
        (lengths.mean().item(), lengths.min().item(), lengths.max().item()), rel=1e-12
    )
    # From sums of squares: below 1e-7 of the mean it is rounding.
    assert norms.std == pytest.approx(lengths.std(correction=0).item(), abs=1e-7 * norms.mean)


def test_uniform_rows_have_a_mean_cosine_of_three_quarters() -> None:
    # (E x)²/E x² = (1/4)/(1/3); at d = 512 the second-order term of the norm is below the tolerance.
    x = torch.rand(4000, 512, generator=torch.Generator().manual_seed(0))
    assert fastaniso.mean_cosine(x) == pytest.approx(0.75, abs=2e-3)


def test_against_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional")
    x = _random(40, 8) + 0.3
    theirs = functional.pairwise_cosine_similarity(x).mean().item()
    # torchmetrics zeroes the diagonal and divides by n² all the same.
    assert fastaniso.mean_cosine(x) * 39 / 40 == pytest.approx(theirs, abs=1e-14)


def test_a_mean_near_zero_survives() -> None:
    """Rounded unit rows are not exactly unit: subtracting n in place of Σ‖u‖² would leave 1e-8 where the mean is."""
    x = torch.randn(20_000, 32, generator=torch.Generator().manual_seed(0))
    x = torch.cat((x, -x))
    # Antipodal pairs: s = 0, so the mean is −1/(n − 1) exactly.
    assert fastaniso.mean_cosine(x) == pytest.approx(-1 / (len(x) - 1), rel=1e-7)


@pytest.mark.parametrize("n", [0, 1])
def test_without_pairs_cosines_are_nan(n: int, backend: str) -> None:
    x = _random(n, 4)
    assert math.isnan(fastaniso.mean_cosine(x, backend=backend))
    assert math.isnan(fastaniso.cosine_std(x, backend=backend))
    assert all(math.isnan(value) for value in fastaniso.dimension_contributions(x, backend=backend).values)
    description = fastaniso.describe(x, groups=torch.zeros(n, dtype=torch.int64), backend=backend)
    assert (description.n, description.pairs) == (n, 0)
    assert math.isnan(description.mean_cosine)
    assert math.isnan(description.within_groups)
    assert math.isnan(description.norms.mean) == (n == 0)
    assert math.isnan(fastaniso.mean_cosine(x, _random(3, 4), backend=backend)) == (n == 0)


def test_statistics_for_pooled_values_agree(backend: str) -> None:
    from fastaniso.ops import dispatch as ops
    from fastaniso.rows import as_rows
    from fastaniso.statistics import cosine

    x = as_rows(_random(30, 5) + 1)
    groups = (torch.arange(30) % 4).view(1, 30)
    total = cosine.sum_and_pairs(ops.moments(x, backend=backend))
    by_group = ops.group_moments(x, groups, 4, backend=backend)
    torch.testing.assert_close(cosine.group_sum_and_pairs(by_group), total)
    within = cosine.within_sum_and_pairs(by_group)
    expected = brute_force.within_between(x.values[0], groups[0])
    across = (total - within)[0] / (total - within)[1]
    assert ((within[0] / within[1]).item(), across.item()) == pytest.approx(expected)
