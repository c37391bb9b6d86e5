"""Against public packages where they are right, and by how much others are off: the table of docs/metrics.md."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import fastaniso

pytestmark = pytest.mark.filterwarnings("ignore:spectral scores")


def _normal(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


A = _normal(4000, 64) * torch.arange(1, 65).double() ** -0.5 + 3
B = _normal(500, 64)
P = _normal(300, 3) @ _normal(3, 64, seed=1)


def test_numpy_and_scikit_learn_agree() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = A.numpy()
    found = decomposition.PCA().fit(x).explained_variance_ratio_
    assert fastaniso.variance_explained(A, 7) == pytest.approx(found[:7].sum(), rel=1e-9)
    assert fastaniso.top_eigenvalue_share(A) == pytest.approx(found[0], rel=1e-9)
    assert fastaniso.condition_number(A) == pytest.approx(np.linalg.cond(x - x.mean(0)) ** 2, rel=1e-9)
    assert fastaniso.condition_number(A, center=False) == pytest.approx(np.linalg.cond(x) ** 2, rel=1e-9)
    correlations = np.linalg.eigvalsh(np.corrcoef(x.T))
    assert fastaniso.nesum(A, standardize=True) == pytest.approx(correlations.sum() / correlations[-1], rel=1e-9)


def test_isoscore_package() -> None:
    package = pytest.importorskip("IsoScore.IsoScore")
    if not hasattr(package, "IsoScore_star"):
        pytest.skip("needs IsoScore 2, whose rows are (n, d)")
    # It rounds √d to float32.
    assert fastaniso.isoscore(A) == pytest.approx(_theirs(package.IsoScore, A), abs=1e-7)
    assert fastaniso.isoscore(B) == pytest.approx(_theirs(package.IsoScore, B), abs=1e-7)
    identity = torch.eye(64, dtype=torch.float64)
    ours = fastaniso.isoscore_star(A, zeta=0.2, legacy="identity")
    assert ours == pytest.approx(_theirs(package.IsoScore_star, A, identity, 0.2), abs=1e-7)
    # With C over n − 1 as theirs, any target.
    target = torch.cov(_normal(200, 64, seed=2).T)
    n = len(A)
    ours = fastaniso.isoscore_star(A, zeta=0.4, target=target * (n - 1) / n)
    assert ours == pytest.approx(_theirs(package.IsoScore_star, A, target, 0.4), abs=1e-7)


def _theirs(function, rows: torch.Tensor, *more: object) -> float:  # type: ignore[no-untyped-def]
    return float(function(rows.numpy(), *more))


def test_what_goes_by_the_name_of_rankme() -> None:
    assert fastaniso.rankme(A) == pytest.approx(8.65, abs=0.005)
    assert fastaniso.rankme(A, legacy="centered") == pytest.approx(54.72, abs=0.005)
    assert fastaniso.rankme(A, legacy="eigenvalues") == pytest.approx(28.51, abs=0.005)


def test_centred_mev_is_another_number() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    as_in_the_papers_code = decomposition.PCA(n_components=1).fit(A.numpy()).explained_variance_ratio_[0]
    assert as_in_the_papers_code == pytest.approx(0.213, abs=0.0005)
    assert fastaniso.mev(A, legacy="centered") == pytest.approx(as_in_the_papers_code, rel=1e-6)
    assert fastaniso.mev(A) == pytest.approx(0.992, abs=0.0005)


def test_uncentred_participation_ratio_is_the_drift() -> None:
    assert fastaniso.participation_ratio(A) == pytest.approx(13.46, abs=0.005)
    assert fastaniso.participation_ratio(A, center=False) == pytest.approx(1.02, abs=0.005)


def test_weighted_ranks() -> None:
    assert fastaniso.alpha_req(A, (10, 60)) == pytest.approx(1.021, abs=0.0005)
    assert fastaniso.alpha_req(A, (10, 60), legacy="weighted") == pytest.approx(1.016, abs=0.0005)


def test_an_identity_of_another_scale() -> None:
    assert fastaniso.isoscore_star(A) == pytest.approx(0.283, abs=0.0005)
    assert fastaniso.isoscore_star(A / 1000) == pytest.approx(0.283, abs=0.0005)
    assert fastaniso.isoscore_star(A, legacy="identity") == pytest.approx(0.831, abs=0.0005)
    assert fastaniso.isoscore_star(A / 1000, legacy="identity") == pytest.approx(1, abs=0.0005)


def test_the_diagonal_adds_one_over_n_to_self_clustering() -> None:
    units = torch.nn.functional.normalize(B, dim=1)
    with_diagonal = ((units @ units.T).square().mean().item() - 1 / 64) / (1 - 1 / 64)
    assert with_diagonal == pytest.approx(0.00192, abs=5e-6)
    assert fastaniso.self_clustering(B) == pytest.approx(-0.00008, abs=5e-6)
    assert with_diagonal - fastaniso.self_clustering(B) == pytest.approx(1 / 500, rel=1e-2)


def test_few_rows() -> None:
    assert fastaniso.participation_ratio(B) == pytest.approx(56.9, abs=0.05)
    assert fastaniso.participation_ratio(B, corrected=True) == pytest.approx(64, abs=0.05)


def test_rounding_is_no_eigenvalue() -> None:
    covariance = np.cov(P.numpy().T)
    assert np.linalg.cond(covariance) > 1e17
    assert fastaniso.condition_number(P) == math.inf
    values = np.linalg.eigvalsh(covariance)[-3:]
    shares = values / values.sum()
    assert -(shares * np.log(shares)).sum() / np.log(3) == pytest.approx(0.996, abs=0.0005)
    assert fastaniso.spectral_entropy(P) == pytest.approx(0.263, abs=0.0005)
