"""Nearest neighbours and what they tell, against brute force, scikit-learn and scikit-dimension."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fastaniso
from fastaniso import InvalidRowsError
from fastaniso.pairing import tiles
from fastaniso.pairing.tiles import rows_in_block
from fastaniso.progress import Progress

X = torch.randn(90, 6, generator=torch.Generator().manual_seed(0)) + 0.3
Y = torch.randn(41, 6, generator=torch.Generator().manual_seed(1)) - 0.1
BACKENDS = ("reference", "cpu")
FUNCTIONS = ("nearest_neighbors", "two_nn", "levina_bickel", "hubness")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu":
        pytest.importorskip("fastaniso._cpu")
    return str(request.param)


def call(name: str, x: Any, **options: Any) -> Any:
    return getattr(fastaniso, name)(x, **({"k": 3} if name == "nearest_neighbors" else {}), **options)


def units(x: Tensor) -> Tensor:
    x = x.double().reshape(-1, x.shape[-1])
    return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)


def distances(x: Tensor, k: int) -> Tensor:
    """Distances of unit rows to their k nearest, all differences written out: (n, k)."""
    u = units(x)
    table = torch.linalg.vector_norm(u[:, None] - u[None], dim=2).fill_diagonal_(torch.inf)
    return table.sort(1).values[:, :k]


def two_nn_of(x: Tensor, share: float) -> float:
    """Facco et al. (2017) step by step: ratios in order, the empirical distribution, the line through the origin."""
    r = distances(x, 2)
    mu = np.sort((r[:, 1] / r[:, 0]).numpy())
    n, used = len(mu), int(len(mu) * share)
    f = np.arange(1, n + 1) / n
    a, b = np.log(mu[:used]), -np.log(1 - f[:used])
    return float((a * b).sum() / (a * a).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 5, 89])
def test_nearest_neighbors(k: int, dtype: torch.dtype, backend: str) -> None:
    x = X.to(dtype)
    cosines, indices = fastaniso.nearest_neighbors(x.view(3, 30, 6), k, backend=backend)
    assert cosines.shape == indices.shape == (3, 30, k)
    assert cosines.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert indices.dtype == torch.int64
    table = (units(x) @ units(x).T).fill_diagonal_(-torch.inf)
    expected, order = table.sort(dim=1, descending=True)
    tolerance = 1e-14 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(cosines.view(90, k).double(), expected[:, :k], rtol=0, atol=tolerance)
    # Where the next cosine is no closer than rounding, there is one right index.
    distinct = expected[:, :k] - expected.roll(-1, 1)[:, :k] > 3 * tolerance
    distinct[:, 1:] &= distinct[:, :-1].clone()
    assert torch.equal(indices.view(90, k)[distinct], order[:, :k][distinct])
    assert distinct.float().mean() > 0.9 or dtype == torch.bfloat16


def test_neighbours_among_another_set(backend: str) -> None:
    mask, other_mask = torch.arange(90) % 4 > 0, torch.arange(41) % 5 > 0
    cosines, indices = fastaniso.nearest_neighbors(X, 3, Y, mask=mask, other_mask=other_mask, backend=backend)
    table = (units(X) @ units(Y).T).masked_fill(~other_mask, -torch.inf)
    expected, order = table.sort(dim=1, descending=True)
    torch.testing.assert_close(cosines[mask].double(), expected[mask, :3], rtol=0, atol=1e-6)
    assert torch.equal(indices[mask], order[mask, :3])
    assert cosines[~mask].eq(-torch.inf).all()
    assert indices[~mask].eq(-1).all()


def test_as_scikit_learn_finds_them() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    found = neighbors.NearestNeighbors(n_neighbors=4, metric="cosine", algorithm="brute").fit(X.double().numpy())
    theirs, their_indices = found.kneighbors()
    cosines, indices = fastaniso.nearest_neighbors(X.double(), 4)
    np.testing.assert_allclose(1 - cosines, theirs, atol=1e-14)
    assert np.array_equal(indices, their_indices)


def test_dropped_rows_are_nobodys_neighbours(backend: str) -> None:
    x = X.clone()
    x[5], x[17, 3] = 0, math.inf
    for name in FUNCTIONS:
        with pytest.raises(InvalidRowsError, match="hidden: row 5 is the first"):
            call(name, x, backend=backend)
    kept = torch.ones(90, dtype=torch.bool).scatter_(0, torch.tensor([5, 17]), False)
    cosines, indices = fastaniso.nearest_neighbors(x, 4, invalid="omit", backend=backend)
    among, places = fastaniso.nearest_neighbors(x[kept], 4, backend=backend)
    torch.testing.assert_close(cosines[kept], among, rtol=0, atol=1e-7)
    assert torch.equal(indices[kept], torch.nonzero(kept)[:, 0][places])
    assert indices[~kept].eq(-1).all()
    for name in FUNCTIONS[1:]:
        ours, theirs = call(name, x, invalid="omit", backend=backend), call(name, x[kept], backend=backend)
        assert (ours.n, ours.dropped.zero, ours.dropped.nonfinite) == (88, 1, 1)
        first = next(f.name for f in dataclasses.fields(ours))
        assert getattr(ours, first) == pytest.approx(getattr(theirs, first), rel=1e-6)


def test_more_rows_than_a_block() -> None:
    n = 2 * rows_in_block(4, torch.float32, "reference", neighbors=True) + 100
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(2))
    cosines, indices = fastaniso.nearest_neighbors(x.double(), 3, backend="reference")
    whole, places = fastaniso.nearest_neighbors(x.double(), 3, backend="cpu")
    torch.testing.assert_close(cosines, whole, rtol=0, atol=1e-14)
    assert torch.equal(indices, places)


def test_tiles_find_what_one_visit_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    # With progress the rows are searched tile by tile, here 1024 rows square.
    monkeypatch.setattr(tiles, "_ROWS", 256)
    x = torch.randn(2500, 5, generator=torch.Generator().manual_seed(7))
    x[1500:1600] = x[:100]
    for other in (None, x[300:1700] + 0.1):
        calls: list[Progress] = []
        cosines, indices = fastaniso.nearest_neighbors(x, 6, other, progress=calls.append)
        assert len(calls) == 6
        whole, places = fastaniso.nearest_neighbors(x, 6, other)
        assert torch.equal(cosines, whole)
        assert torch.equal(indices, places)


OPTIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "none": ("nearest_neighbors", {"k": 0}, "k: expected an int from 1 to 128, got 0"),
    "too many": ("hubness", {"k": 129}, "k: expected an int from 1 to 128, got 129"),
    "half": ("nearest_neighbors", {"k": 1.5}, "k: expected an int"),
    "more than others": ("nearest_neighbors", {"k": 90}, "k: expected at most 89 .*other rows.*got 90"),
    "more than kept": ("hubness", {"k": 50, "mask": torch.arange(90) < 40}, "k: expected at most 39"),
    "more than the other set": ("nearest_neighbors", {"k": 42, "other": Y}, "k: expected at most 41 .other has"),
    "one distance": ("levina_bickel", {"k": 1}, "k: expected 2 or more"),
    "more than there are": ("levina_bickel", {"k": 100}, "k: expected at most 89"),
    "another average": ("levina_bickel", {"average": "mean"}, r"average: expected 'inverse' .* got 'mean'"),
    "no share": ("two_nn", {"share": 1.0}, r"share: expected a number between 0 and 1, got 1\.0"),
    "another dtype": ("hubness", {"other": Y.double()}, "other: expected float32 as in hidden, got float64"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_unusable_options_say_why(case: str) -> None:
    name, options, message = OPTIONS[case]
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(fastaniso, name)(X, **options)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_two_nn(share: float, backend: str) -> None:
    result = fastaniso.two_nn(X, share=share, backend=backend)
    assert result.dimension == pytest.approx(two_nn_of(X, share), rel=1e-4)
    assert fastaniso.two_nn(X.double(), share=share, backend=backend).dimension == pytest.approx(
        two_nn_of(X, share), rel=1e-9
    )
    assert (result.n, result.used, result.share, result.duplicates) == (90, int(90 * share), share, 0)


def _levina_bickel_of(x: Tensor, k: int, average: str) -> float:
    r = distances(x, k).numpy()
    inverse = np.log(r[:, -1:] / r[:, :-1]).sum(1) / (k - 1)
    return float(1 / inverse.mean() if average == "inverse" else (1 / inverse).mean())


@pytest.mark.parametrize("average", ["inverse", "direct"])
@pytest.mark.parametrize("k", [2, 10])
def test_levina_bickel(k: int, average: str, backend: str) -> None:
    if (k, average) == (2, "direct"):
        k = 3  # of one ratio the mean of m̂ has no bound: any rounding shows
    result = fastaniso.levina_bickel(X, k, average=average, backend=backend)
    assert result.dimension == pytest.approx(_levina_bickel_of(X, k, average), rel=1e-3)
    assert (result.k, result.average, result.used, result.duplicates) == (k, average, 90, 0)
    wide = fastaniso.levina_bickel(X.double(), k, average=average, backend=backend)
    assert wide.dimension == pytest.approx(_levina_bickel_of(X, k, average), rel=1e-8)


@pytest.mark.filterwarnings("ignore")
def test_as_scikit_dimension_estimates() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimators = pytest.importorskip("skdim.id")
    x = torch.randn(400, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    u = units(x).numpy()
    theirs = estimators.TwoNN(discard_fraction=0.1).fit(u).dimension_
    assert fastaniso.two_nn(x).dimension == pytest.approx(theirs, rel=1e-9)
    theirs = estimators.MLE().fit_transform(u, n_neighbors=12, comb="mle")
    assert fastaniso.levina_bickel(x, 12).dimension == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("name", ["two_nn", "levina_bickel"])
def test_the_dimension_of_a_subspace_is_found(name: str) -> None:
    generator = torch.Generator().manual_seed(4)
    basis, _ = torch.linalg.qr(torch.randn(50, 4, generator=generator))
    x = torch.randn(3000, 4, generator=generator) @ basis.T
    # Directions in four dimensions: three, but for the sphere's curvature and n.
    assert getattr(fastaniso, name)(x).dimension == pytest.approx(3, abs=0.25)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_near_neighbours_keep_their_ratio(dtype: torch.dtype, backend: str) -> None:
    """Triples within 1e-4 of each other: their cosines are all 1 in float32, their distances are not all one."""
    generator = torch.Generator().manual_seed(5)
    centres = torch.randn(60, 1, 8, generator=generator)
    x = (centres + 1e-4 * torch.randn(60, 3, 8, generator=generator)).flatten(0, 1).to(dtype)
    assert (distances(x, 2) < 1e-3).float().mean() > 0.9
    result = fastaniso.two_nn(x, backend=backend)
    assert result.dimension == pytest.approx(two_nn_of(x, 0.9), rel=1e-9)
    assert fastaniso.levina_bickel(x, 2, backend=backend).dimension == pytest.approx(
        _levina_bickel_of(x, 2, "inverse"), rel=1e-9
    )
    assert result.uncertain == 0


def test_rows_that_float32_cannot_tell_apart_are_counted() -> None:
    x = 100 + torch.randn(200, 16, generator=torch.Generator().manual_seed(6))  # 1 − mean cosine of 1e-4
    x = (x + 10_000).double()
    assert fastaniso.two_nn(x.float()).uncertain > 100
    exact = fastaniso.two_nn(x)
    assert exact.uncertain == 0
    assert exact.dimension == pytest.approx(two_nn_of(x, 0.9), rel=1e-6)
    assert "uncertain" in str(fastaniso.two_nn(x.float()))


def test_duplicates_are_counted_and_left_out(backend: str) -> None:
    x = torch.cat((X, X[:7], 4 * X[3:5], X[:1]))
    for name, expected in (("two_nn", two_nn_of(X, 0.9)), ("levina_bickel", _levina_bickel_of(X, 10, "inverse"))):
        result = getattr(fastaniso, name)(x.double(), backend=backend)
        assert result.dimension == pytest.approx(expected, rel=1e-9)
        assert result.duplicates == 10
        assert "duplicates" in str(result)
    mask = torch.arange(100) < 95
    assert fastaniso.two_nn(x.double(), mask=mask, backend=backend).duplicates == 5


@pytest.mark.parametrize("x", [X[:0], X[:2], X[:1].repeat(9, 1), torch.cat((X[:2], X[:2]))])
def test_too_few_rows_have_no_dimension(x: Tensor) -> None:
    assert math.isnan(fastaniso.two_nn(x).dimension)
    if len(x) > 2:
        assert math.isnan(fastaniso.levina_bickel(x, 3).dimension)


def test_hubness(backend: str) -> None:
    stats = pytest.importorskip("scipy.stats")
    for other in (None, Y):
        result = fastaniso.hubness(X, 5, other, backend=backend)
        _, indices = fastaniso.nearest_neighbors(X, 5, other, backend=backend)
        counts = np.bincount(indices.flatten().numpy(), minlength=90 if other is None else 41)
        assert np.array_equal(result.occurrences, counts)
        assert result.skewness == pytest.approx(stats.skew(counts))
        assert result.robin_hood == pytest.approx(np.abs(counts - counts.mean()).sum() / 2 / counts.sum())
        assert result.antihubs == (counts == 0).mean()
        assert (result.largest, result.k, result.candidates) == (counts.max(), 5, len(counts))


def test_known_hubs(backend: str) -> None:
    # One row in the middle of a cone of rows that are far from each other.
    x = torch.cat((torch.ones(1, 9), torch.ones(9, 9) + 2 * torch.eye(9)))
    result = fastaniso.hubness(x.double(), 1, backend=backend)
    assert result.occurrences[0] == 9
    assert sorted(result.occurrences.tolist()) == [*[0] * 8, 1, 9]
    assert result.largest == 9
    assert result.antihubs == 0.8
    assert result.robin_hood == pytest.approx((8 + 8 * 1) / 2 / 10)
    ring = torch.tensor([[math.cos(a), math.sin(a)] for a in np.arange(8) * math.tau / 8], dtype=torch.float64)
    level = fastaniso.hubness(ring, 2, mask=torch.arange(8) < 8, backend=backend)
    assert (level.robin_hood, level.antihubs) == (0, 0)
    assert math.isnan(level.skewness)


def test_hubness_of_candidates_that_count(backend: str) -> None:
    mask = torch.arange(90) % 3 > 0
    masked = fastaniso.hubness(X, 4, mask=mask, backend=backend)
    alone = fastaniso.hubness(X[mask], 4, backend=backend)
    assert masked.skewness == alone.skewness
    assert masked.candidates == 60
    assert np.array_equal(masked.occurrences[mask.numpy()], alone.occurrences)
    assert (masked.occurrences[~mask.numpy()] == -1).all()


def test_memory_limit() -> None:
    for name in FUNCTIONS:
        with pytest.raises(MemoryError, match=r"memory_limit: 1 kB given, .* fewer bins or neighbours"):
            call(name, X, memory_limit="1 kB")
        call(name, X, memory_limit="30 MB")


def test_progress() -> None:
    calls: list[Progress] = []
    fastaniso.nearest_neighbors(torch.randn(1000, 3), 2, backend="reference", progress=calls.append)
    assert len(calls) == 3  # two blocks of 512 rows or fewer
    assert (calls[-1].done, calls[-1].share, calls[-1].unit) == (1000 * 999, 1.0, "pairs")


def test_results_are_frozen_printed_and_written() -> None:
    for name, label in (("two_nn", "two-NN"), ("levina_bickel", "Levina-Bickel"), ("hubness", "Robin Hood")):
        result = getattr(fastaniso, name)(X)
        field = dataclasses.fields(result)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, field, 0)
        assert label in str(result)
        content = json.loads(result.to_json())
        assert content[field] == getattr(result, field)
        assert content["version"] == fastaniso.__version__
        assert content["provenance"] == ["float32 rows, cpu kernel"]
        assert field in content["conventions"]
        assert "occurrences" not in content
