"""Spearman's ρ and its p: against enumeration written out, scipy, and what p has to do under chance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from fastaniso.scanning.rank import rank_correlation, spearman


def test_exact_p_counts_the_orders() -> None:
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 3.0, 5.0, 4.0]
    found = rank_correlation(x, y)
    rhos = [spearman(x, list(order)) for order in itertools.permutations(y)]
    assert found.rho == pytest.approx(0.8)
    assert found.p == sum(abs(rho) >= 0.8 - 1e-12 for rho in rhos) / 120
    assert (found.n, found.method) == (5, "exact permutation")


def test_ties_are_permuted_as_they_are() -> None:
    x, y = [1.0, 1.0, 2.0, 3.0], [4.0, 5.0, 5.0, 7.0]
    rhos = [spearman(x, list(order)) for order in itertools.permutations(y)]
    found = rank_correlation(x, y)
    assert found.p == sum(abs(rho) >= abs(found.rho) - 1e-12 for rho in rhos) / 24


def test_a_perfect_order_is_two_of_all() -> None:
    for n in (3, 6, 9, 12):
        x = list(map(float, range(n)))
        for y in (x, x[::-1]):
            assert rank_correlation(x, y).p == pytest.approx(2 / math.factorial(n))


@pytest.mark.parametrize("n", [10, 13, 33, 200])
def test_t_approximation_is_scipys(n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(n)
    for strength in (0.0, 0.3, 2.0):
        x = rng.standard_normal(n)
        y = (strength * x + rng.standard_normal(n)).round(1)  # with ties
        expected = stats.spearmanr(x, y)
        found = rank_correlation(x.tolist(), y.tolist())
        assert found.rho == pytest.approx(expected.statistic, rel=1e-12)
        # scipy's own tail loses digits relative to what is left of 1.
        assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-14)
        assert found.method == "t approximation"


def test_p_is_uniform_under_chance() -> None:
    rng = np.random.default_rng(0)
    p = np.array([rank_correlation(list(map(float, range(12))), rng.permutation(12).tolist()).p for _ in range(2000)])
    for level in (0.05, 0.2, 0.5):
        # four standard errors of a share of 2000, and what the approximation misses at n = 12
        assert abs(np.mean(p <= level) - level) < 4 * math.sqrt(level * (1 - level) / 2000) + 0.005


def test_no_spread_and_too_few() -> None:
    for x, y in (([1.0, 2.0], [1.0, 2.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])):
        found = rank_correlation(x, y)
        assert math.isnan(found.rho)
        assert math.isnan(found.p)
