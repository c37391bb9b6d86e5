"""Scores of the spectrum against their formulas in float64, closed forms, and what is said of few rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import brute_force
import pytest
import torch
from brute_force import eigenvalues, entropy, padded
from torch import Tensor

import fastaniso

BACKENDS = ("reference", "cpu")
Score = Callable[[Tensor, dict[str, bool]], float]


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _slope(values: Tensor, first: int, last: int, *, weighted: bool = False) -> float:
    levels = values[first - 1 : last]
    k = torch.arange(first, first + len(levels), dtype=torch.float64)
    weights = 1 / k if weighted else torch.ones_like(k)
    design = torch.stack((k.log(), torch.ones_like(k)), 1) * weights.sqrt()[:, None]
    return -torch.linalg.lstsq(design, (levels.log() * weights.sqrt())[:, None]).solution[0].item()


def _over_sum(values: Tensor) -> Tensor:
    return values / values.sum()


# Each from the eigenvalues of the rows as the form asks for: squares of singular values, no scatter is formed.
SCORES: dict[str, Score] = {
    "participation_ratio": lambda x, form: 1 / _over_sum(eigenvalues(x, **form)).square().sum().item(),
    "effective_rank": lambda x, form: math.exp(entropy(_over_sum(eigenvalues(x, **form).sqrt()))),
    "rankme": lambda x, form: math.exp(entropy(_over_sum(eigenvalues(x, **form).sqrt()) + 1e-7)),
    "stable_rank": lambda x, form: 1 / _over_sum(eigenvalues(x, **form))[0].item(),
    "nesum": lambda x, form: 1 / _over_sum(eigenvalues(x, **form))[0].item(),
    "top_eigenvalue_share": lambda x, form: _over_sum(eigenvalues(x, **form))[0].item(),
    "variance_explained": lambda x, form: _over_sum(eigenvalues(x, **form))[:10].sum().item(),
    "spectral_entropy": lambda x, form: entropy(_over_sum(eigenvalues(x, **form))) / math.log(x.shape[1]),
    "condition_number": lambda x, form: (eigenvalues(x, **form)[0] / eigenvalues(x, **form)[-1]).item(),
    "alpha_req": lambda x, form: _slope(eigenvalues(x, **form), 10, min(100, x.shape[1])),
    "mev": lambda x, form: _over_sum(eigenvalues(x, **form))[0].item(),
}
UNCENTRED = {"effective_rank", "rankme", "stable_rank", "mev"}
FORMS: dict[str, dict[str, bool]] = {
    "default": {},
    "centred": {"center": True},
    "uncentred": {"center": False},
    "standardized": {"center": True, "standardize": True},
    "unit": {"unit": True},
    "unit, standardized": {"center": True, "standardize": True, "unit": True},
}
ROWS = _random(400, 24) * torch.arange(1, 25) ** -0.7 + torch.linspace(0, 2, 24).double()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu":
        pytest.importorskip("fastaniso._cpu")
    return str(request.param)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SCORES)
def test_scores_are_their_formulas(name: str, form: str, backend: str) -> None:
    options = FORMS[form]
    expected = SCORES[name](ROWS, {"center": name not in UNCENTRED, **options})
    function = getattr(fastaniso, name)
    assert function(ROWS, **options, backend=backend) == pytest.approx(expected, rel=1e-9)
    # float32 rows: their products round at 2⁻²⁴ of the largest, and the spectrum falls to a hundredth of that.
    rounded = ROWS.float()
    expected = SCORES[name](rounded, {"center": name not in UNCENTRED, **options})
    assert function(rounded, **options, backend=backend) == pytest.approx(expected, rel=1e-4)


@pytest.mark.filterwarnings("ignore:spectral scores")
@pytest.mark.parametrize("name", sorted(set(SCORES) - {"condition_number"}))
def test_fewer_rows_than_dimensions(name: str) -> None:
    x = ROWS[:20]
    expected = SCORES[name](x, {"center": name not in UNCENTRED})
    if name == "alpha_req":  # centred, 20 rows span 19 dimensions
        expected = _slope(eigenvalues(x), 10, 19)
    # The centred rows' last singular value is 0: √(d·2.2e-16)·σ₁ is as well as the scatter knows that.
    assert getattr(fastaniso, name)(x) == pytest.approx(expected, rel=1e-6)


def test_self_clustering(backend: str) -> None:
    n, d = ROWS.shape
    u = brute_force.units(ROWS)
    q = (u.T @ u).square().sum().item()
    as_published = (q - n - n * (n - 1) / d) / (n * n - n - n * (n - 1) / d)
    assert fastaniso.self_clustering(ROWS, backend=backend) == pytest.approx(as_published, abs=1e-12)
    assert fastaniso.self_clustering(ROWS.float(), backend=backend) == pytest.approx(as_published, abs=1e-6)


def test_isoscore_star(backend: str) -> None:
    large = _random(900, 24, seed=1) @ _random(24, 24, seed=2)
    target = brute_force.covariance(large)

    def expected(covariance: Tensor) -> float:
        return ((covariance.trace().square() / covariance.square().sum() - 1) / 23).item()

    few = ROWS[:250]
    own = brute_force.covariance(few)
    shrunk = expected(0.7 * own + 0.3 * target)
    score = fastaniso.isoscore_star
    assert score(few, zeta=0.3, target=target, backend=backend) == pytest.approx(shrunk, rel=1e-12)
    state = fastaniso.Accumulator(gram="raw", backend=backend).update(large).state
    assert score(few, zeta=0.3, target=state, backend=backend) == pytest.approx(shrunk, rel=1e-12)
    scaled = 0.8 * own + 0.2 * torch.eye(24).double() * own.trace() / 24
    assert score(few, backend=backend) == pytest.approx(expected(scaled), rel=1e-12)
    assert score(few * 1e-3, backend=backend) == pytest.approx(expected(scaled), rel=1e-9)
    identity = 0.8 * own * 250 / 249 + 0.2 * torch.eye(24).double()
    assert score(few, legacy="identity", backend=backend) == pytest.approx(expected(identity), rel=1e-12)
    assert score(few, zeta=0, backend=backend) == pytest.approx(fastaniso.isoscore(few, backend=backend), rel=1e-12)
    assert score(few, zeta=1, backend=backend) == pytest.approx(1, rel=1e-12)


@pytest.mark.filterwarnings("ignore:spectral scores")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rank_one(dtype: torch.dtype, backend: str) -> None:
    # Along one axis exactly: no dtype rounds it into a second direction.
    x = torch.zeros(300, 40, dtype=dtype)
    x[:, 7] = _random(300)
    for name in ("participation_ratio", "effective_rank", "stable_rank", "nesum", "top_eigenvalue_share", "mev"):
        assert getattr(fastaniso, name)(x, backend=backend) == pytest.approx(1, abs=1e-12), name
    assert fastaniso.variance_explained(x, 1, backend=backend) == 1
    assert fastaniso.isoscore(x, backend=backend) == pytest.approx(0, abs=1e-12)
    assert fastaniso.spectral_entropy(x, backend=backend) == pytest.approx(0, abs=1e-12)
    assert fastaniso.condition_number(x, backend=backend) == math.inf
    assert math.isnan(fastaniso.alpha_req(x, (1, 40), backend=backend))
    assert fastaniso.self_clustering(x, backend=backend) == pytest.approx(1, abs=1e-6)
    # ε enters after the division, at zeros, too: Σp = 1 + 40 ε.
    expected = math.exp(-(1 + 1e-7) * math.log1p(1e-7) - 39e-7 * math.log(1e-7))
    assert fastaniso.rankme(x, backend=backend) == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("ignore:spectral scores")
def test_rounding_of_float32_products_is_no_rank(backend: str) -> None:
    """Products of float32 rows leave eigenvalues of 1e-8 λ₁ either side of zero, whose roots would add up to .1."""
    x = (_random(1500, 1) * _random(1, 128, seed=1)).float()
    assert fastaniso.effective_rank(x, backend=backend) == pytest.approx(1, abs=1e-3)
    assert fastaniso.condition_number(x, backend=backend) == math.inf
    plane = (_random(2000, 3) @ _random(3, 64, seed=1)).float()
    expected = brute_force.effective_rank(plane, center=False)
    assert fastaniso.effective_rank(plane, backend=backend) == pytest.approx(expected, rel=1e-4)


def test_exactly_isotropic_rows(backend: str) -> None:
    d = 16
    x = torch.cat((torch.eye(d), -torch.eye(d))).double().repeat(6, 1) * 3
    for name in ("participation_ratio", "effective_rank", "stable_rank", "nesum"):
        assert getattr(fastaniso, name)(x, backend=backend) == pytest.approx(d, rel=1e-12), name
    for name in ("top_eigenvalue_share", "mev"):
        assert getattr(fastaniso, name)(x, backend=backend) == pytest.approx(1 / d, rel=1e-12), name
    for name in ("isoscore", "spectral_entropy", "condition_number", "isoscore_star"):
        assert getattr(fastaniso, name)(x, backend=backend) == pytest.approx(1, rel=1e-12), name
    assert fastaniso.variance_explained(x, 4, backend=backend) == pytest.approx(1 / 4)
    assert fastaniso.variance_explained(x, 99, backend=backend) == 1
    assert fastaniso.alpha_req(x, (2, 16), backend=backend) == pytest.approx(0, abs=1e-12)
    # A tight frame: Σc² over all pairs is n²/d, its least; over i ≠ j the score is −1/(n − 1).
    assert fastaniso.self_clustering(x, backend=backend) == pytest.approx(-1 / (len(x) - 1), rel=1e-6)


def test_two_clusters(backend: str) -> None:
    x = torch.zeros(60, 5).double()
    x[:20, 0], x[20:, 1] = 1, 2
    # Centred, two points lie on a line; uncentred σ² are 20 and 160.
    assert fastaniso.nesum(x, backend=backend) == pytest.approx(1)
    assert fastaniso.mev(x, backend=backend) == pytest.approx(160 / 180)
    assert fastaniso.stable_rank(x, backend=backend) == pytest.approx(180 / 160)
    shares = torch.tensor([20, 160]).double().sqrt()
    expected = math.exp(entropy(shares / shares.sum()))
    assert fastaniso.effective_rank(x, backend=backend) == pytest.approx(expected)
    # c is 1 within a cluster and 0 between.
    same = (20 * 19 + 40 * 39) / (60 * 59)
    assert fastaniso.self_clustering(x, backend=backend) == pytest.approx((same - 1 / 5) / (4 / 5))


def test_a_power_law_is_found(backend: str) -> None:
    d, alpha = 128, 1.3
    rotation, _ = torch.linalg.qr(_random(d, d))
    axes = torch.arange(1, d + 1).double() ** (-alpha / 2)
    x = torch.cat((torch.diag(axes), -torch.diag(axes))).repeat(5, 1) @ rotation
    for options in ({}, {"ranks": (1, 128)}, {"legacy": "weighted"}):
        assert fastaniso.alpha_req(x, **options, backend=backend) == pytest.approx(alpha, rel=1e-9)  # type: ignore[arg-type]


def test_legacy_variants(backend: str) -> None:
    centred = eigenvalues(ROWS)
    rankme, mev = fastaniso.rankme, fastaniso.mev
    assert rankme(ROWS, legacy="centered", backend=backend) == pytest.approx(rankme(ROWS, center=True), rel=1e-9)
    expected = math.exp(entropy(_over_sum(centred) + 1e-7))
    assert rankme(ROWS, legacy="eigenvalues", backend=backend) == pytest.approx(expected, rel=1e-9)
    assert mev(ROWS, legacy="centered", backend=backend) == pytest.approx(_over_sum(centred)[0].item(), rel=1e-9)
    weighted = _slope(centred, 3, 24, weighted=True)
    assert weighted != pytest.approx(_slope(centred, 3, 24), rel=1e-3)
    found = fastaniso.alpha_req(ROWS, (3, 24), legacy="weighted", backend=backend)
    assert found == pytest.approx(weighted, rel=1e-9)


def test_a_dimension_that_does_not_vary(backend: str) -> None:
    x = ROWS.clone()
    x[:, 5] = 4.0
    without = torch.cat((x[:, :5], x[:, 6:]), 1)
    options: dict[str, Any] = {"standardize": True, "backend": backend}
    assert fastaniso.nesum(x, **options) == pytest.approx(fastaniso.nesum(without, **options), rel=1e-9)
    assert fastaniso.condition_number(x, **options) == math.inf


@pytest.mark.parametrize(("n", "score"), [(500, 0.39), (1000, 0.56), (5000, 0.87), (20_000, 0.96)])
def test_isoscore_of_isotropic_rows_of_768(n: int, score: float) -> None:
    # The scores only meet the table's two digits; the limit (1/(1/n + 1/d) − 1)/(d − 1) is met to three.
    limit = (1 / (1 / n + 1 / 768) - 1) / 767
    assert limit == pytest.approx(score, abs=0.006)
    if n > 5000:
        return  # the limit tells as much
    x = torch.randn(n, 768, generator=torch.Generator().manual_seed(n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert fastaniso.isoscore(x) == pytest.approx(limit, abs=2e-3)
        assert fastaniso.isoscore(x, corrected=True) > 0.99


@pytest.mark.filterwarnings("ignore:spectral scores")
def test_corrected_for_few_rows() -> None:
    # λ_k = 1/k: PR = (Σ1/k)²/Σ1/k². Few rows bias it by 1/n of 1/PR; over 40 draws the corrected one is nearer.
    d, n = 64, 100
    values = 1 / torch.arange(1, d + 1).double()
    truth = (values.sum().square() / values.square().sum()).item()
    draws = [_random(n, d, seed=seed) * values.sqrt() for seed in range(40)]
    plain = sum(fastaniso.participation_ratio(x, backend="reference") for x in draws) / 40
    corrected = sum(fastaniso.participation_ratio(x, corrected=True, backend="reference") for x in draws) / 40
    assert plain == pytest.approx(1 / (1 / truth + 1 / n), rel=0.03)
    assert corrected == pytest.approx(truth, rel=0.04)
    assert abs(corrected - truth) < abs(plain - truth) / 2
    assert math.isnan(fastaniso.participation_ratio(draws[0][:2], corrected=True))


@pytest.mark.filterwarnings("ignore:spectral scores")
@pytest.mark.parametrize("name", sorted({*SCORES, "isoscore", "isoscore_star"}))
def test_undefined(name: str, backend: str) -> None:
    function = getattr(fastaniso, name)
    assert math.isnan(function(_random(0, 4), backend=backend))
    same = torch.ones(9, 4).double()
    undefined = name not in UNCENTRED
    assert math.isnan(function(same, backend=backend)) == undefined


OPTIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "standardize uncentred": ("mev", {"standardize": True}, "standardize: needs center=True"),
    "corrected uncentred": (
        "participation_ratio",
        {"center": False, "corrected": True},
        "corrected: needs center=True",
    ),
    "zeta": ("isoscore_star", {"zeta": 1.5}, "zeta: expected a number from 0 .* to 1, got 1.5"),
    "target's shape": ("isoscore_star", {"target": torch.eye(3)}, r"target: expected .* \(24, 24\), got \(3, 3\)"),
    "no target": ("isoscore_star", {"target": 3}, r"target: expected a Gram or a covariance \(24, 24\), got int"),
    "two targets": (
        "isoscore_star",
        {"target": torch.eye(24), "legacy": "identity"},
        "target: legacy='identity' takes",
    ),
    "epsilon": ("rankme", {"epsilon": -1.0}, "epsilon: expected a number from 0 to below 1, got -1.0"),
    "k": ("variance_explained", {"k": 0}, "k: expected an int of at least 1, got 0"),
    "ranks": ("alpha_req", {"ranks": (5, 5)}, r"ranks: expected two ints, 1 <= first < last, got \(5, 5\)"),
    "legacy": ("rankme", {"legacy": "old"}, "legacy: expected None or 'centered' or 'eigenvalues', got 'old'"),
    "legacy of mev": ("mev", {"legacy": "eigenvalues"}, "legacy: expected None or 'centered', got 'eigenvalues'"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_unusable_options_say_why(case: str) -> None:
    name, options, message = OPTIONS[case]
    with pytest.raises(ValueError, match=message):
        getattr(fastaniso, name)(ROWS, **options)


@pytest.mark.parametrize("name", sorted({*SCORES, "isoscore", "isoscore_star"}))
def test_few_rows_warn_where_the_call_is(name: str) -> None:
    with pytest.warns(UserWarning, match="spectral scores of 239 rows of dimension 24 are biased") as caught:
        getattr(fastaniso, name)(ROWS[:239])
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(fastaniso, name)(ROWS[:240])
        fastaniso.self_clustering(ROWS[:24])


def test_padded_eigenvalues_are_the_covariances() -> None:
    """The brute force itself: singular values of rows against eigenvalues of their covariance."""
    x = ROWS[:12]
    expected = torch.linalg.eigvalsh(brute_force.covariance(x)).flip(0)
    torch.testing.assert_close(padded(eigenvalues(x), 24), expected, rtol=1e-9, atol=1e-12)
