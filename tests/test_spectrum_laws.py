"""Laws of spectral scores that hold for any rows: rotation, scale, order, copies, and how scores relate."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastaniso

pytestmark = pytest.mark.filterwarnings("ignore:spectral scores")
law = settings(max_examples=20, deadline=None)

OPTIONS: dict[str, dict[str, Any]] = {"alpha_req": {"ranks": (1, 6)}, "variance_explained": {"k": 2}}
SCORES = [entry.name for entry in fastaniso.metrics().values() if entry.structure == "gram"]


@st.composite
def cloud(draw: st.DrawFn) -> Tensor:
    n, d = draw(st.integers(12, 30)), draw(st.integers(2, 8))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    slope, offset = draw(st.sampled_from([0.0, -1.0])), draw(st.sampled_from([0.0, 0.5, 5.0]))
    axes = torch.arange(1, d + 1).double() ** slope
    return torch.randn(n, d, dtype=torch.float64, generator=generator) * axes + offset


def scores(x: Tensor, **form: bool) -> dict[str, Any]:
    asked = {}
    for name in SCORES:
        takes = fastaniso.metrics()[name].options
        asked[name] = {**OPTIONS.get(name, {}), **{key: value for key, value in form.items() if key in takes}}
    found = fastaniso.describe(x, metrics=asked, backend="reference").metrics
    return dict(zip(SCORES, found.values(), strict=True))


def agree(a: dict[str, Any], b: dict[str, Any], *, without: set[str] = frozenset(), rel: float = 1e-6) -> None:  # type: ignore[assignment]
    for name in set(SCORES) - without:
        assert a[name] == pytest.approx(b[name], rel=rel, abs=1e-7, nan_ok=True), name


@law
@given(cloud(), st.integers(0, 2**32), st.booleans())
def test_rotation(x: Tensor, seed: int, unit: bool) -> None:
    d = x.shape[1]
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))
    agree(scores(x, unit=unit), scores(x @ rotation, unit=unit))


@law
@given(cloud(), st.floats(1e-20, 1e20))
def test_one_scale_for_all(x: Tensor, scale: float) -> None:
    agree(scores(x), scores(x * scale))


@law
@given(cloud(), st.integers(0, 2**32))
def test_a_scale_for_each_row_changes_no_score_of_unit_rows(x: Tensor, seed: int) -> None:
    scale = torch.rand(len(x), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 1e3 + 1e-3
    without = {"isoscore_star"}  # takes no unit=
    agree(scores(x, unit=True), scores(x * scale, unit=True), without=without)


@law
@given(cloud(), st.integers(0, 2**32))
def test_a_scale_for_each_dimension_changes_no_standardised_score(x: Tensor, seed: int) -> None:
    scale = torch.rand(x.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 10 + 0.1
    form = {"center": True, "standardize": True}
    without = {"isoscore_star", "cosine_std", "self_clustering"}
    agree(scores(x, **form), scores(x * scale, **form), without=without)


@law
@given(cloud(), st.floats(-100, 100))
def test_a_shift_changes_no_centred_score(x: Tensor, shift: float) -> None:
    without = {"cosine_std", "self_clustering"}
    agree(scores(x, center=True), scores(x + shift, center=True), without=without, rel=1e-5)


@law
@given(cloud(), st.randoms(use_true_random=False))
def test_order(x: Tensor, random: Any) -> None:
    order = list(range(len(x)))
    random.shuffle(order)
    agree(scores(x), scores(x[order]))


@law
@given(cloud(), st.integers(2, 4))
def test_copies_of_all_rows(x: Tensor, times: int) -> None:
    # Pairs of copies have cosine 1: what is over pairs i ≠ j changes.
    agree(scores(x), scores(x.repeat(times, 1)), without={"cosine_std", "self_clustering"})


@law
@given(cloud())
def test_how_scores_stand_to_each_other(x: Tensor) -> None:
    d = x.shape[1]
    for center in (False, True):
        s = scores(x, center=center)
        assert s["nesum"] == pytest.approx(s["stable_rank"])
        assert s["top_eigenvalue_share"] == pytest.approx(s["mev"])
        assert s["nesum"] * s["mev"] == pytest.approx(1)
        assert s["rankme"] == pytest.approx(s["effective_rank"], rel=1e-4)
        # Rényi entropies fall with their order: ∞, 2 and 1 of λ; singular values are more even than their squares.
        von_neumann = math.exp(s["spectral_entropy"] * math.log(d))
        in_order = (s["nesum"], s["participation_ratio"], von_neumann, s["effective_rank"])
        assert all(a <= b * (1 + 1e-9) for a, b in zip((1, *in_order), (*in_order, d), strict=True))
        assert s["mev"] <= s["variance_explained"] + 1e-12 <= 1 + 2e-12
        assert s["condition_number"] >= 1
        assert s["alpha_req"] >= -1e-12


@law
@given(cloud())
def test_self_clustering_is_a_mean_square(x: Tensor) -> None:
    n, d = x.shape
    mean, std = fastaniso.mean_cosine(x), fastaniso.cosine_std(x)
    score = fastaniso.self_clustering(x)
    assert score == pytest.approx((mean**2 + std**2 - 1 / d) / (1 - 1 / d), abs=1e-12)
    assert -1 / (max(n, d) - 1) - 1e-12 <= score <= 1 + 1e-12


@law
@given(cloud(), st.floats(0, 1), st.floats(0, 1))
def test_more_shrinkage_is_more_isotropic(x: Tensor, zeta: float, other: float) -> None:
    less, more = sorted((zeta, other))
    score = fastaniso.isoscore_star
    assert score(x, zeta=less) <= score(x, zeta=more) + 1e-9
