"""Pairs within groups and between them, against brute force, and against the two means."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pairwise import all_cosines, check, variance_error
from torch import Tensor

import fastaniso
from fastaniso.functional import grouped
from fastaniso.ops import dispatch
from fastaniso.progress import Progress
from fastaniso.rows import as_rows

X = torch.randn(120, 7, generator=torch.Generator().manual_seed(0)) + 0.4
LABELS = torch.tensor([-7, 3, 10**12, 5])[torch.arange(120) % 11 % 4]
BACKENDS = ("reference", "cpu")


def _check(x: Tensor, labels: Tensor, result: fastaniso.GroupPairs, mask: Tensor | None = None) -> None:
    cosines, i, j = all_cosines(x, mask=mask)
    same = labels[i] == labels[j]
    check(result.within, cosines[same], i[same], j[same])
    # All that is known between but the extrema.
    c, error = cosines[~same].numpy(), result.between.cosine_error
    assert result.between.pairs == len(c) == result.between.histogram.pairs
    assert (result.between.min, result.between.max) == (None, None)
    if not len(c):
        assert math.isnan(result.between.mean or 0)
        return
    assert result.between.mean == pytest.approx(c.mean(), abs=error)
    assert result.between.std is not None
    assert abs(result.between.std**2 - c.var()) <= 2 * variance_error(result.between, c.std()) * len(cosines) / len(c)
    q = np.linspace(0, 1, 11)
    found = result.between.quantile(q)
    assert (np.abs(found.value - np.quantile(c, q, method="inverted_cdf")) <= found.bound).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("masked", [False, True])
def test_groups(backend: str, masked: bool) -> None:
    mask = torch.arange(120) % 5 > 0 if masked else None
    result = fastaniso.group_pairs(X, LABELS, mask=mask, thresholds=(0.1, 0.5), backend=backend)
    _check(X, LABELS, result, mask)
    assert result.groups == 4
    means = fastaniso.group_cosine(X, LABELS, mask=mask, backend=backend)
    assert result.within.mean == pytest.approx(means.pooled_within, abs=1e-6)
    assert result.between.mean == pytest.approx(means.pooled_between, abs=1e-6)
    whole = fastaniso.pairs(X, mask=mask, thresholds=(0.1, 0.5), backend=backend)
    assert np.array_equal(result.within.histogram.total + result.between.histogram.total, whole.histogram.total)
    for part in (result.within, result.between):
        assert (part.histogram.total >= 0).all()
        assert part.share_above(0.1).bound == 0


def test_many_groups_and_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks of nine rows: groups of several tiles, beside more small ones than are merged at once.
    monkeypatch.setattr(grouped, "_GATHERED", 9 * 7 * 4)
    labels = torch.cat((torch.arange(70), torch.zeros(50, dtype=torch.int64)))[torch.randperm(120)]
    labels = torch.cat((labels, labels))
    x = torch.cat((X, X.flip(0) + 0.1))
    _check(x, labels, fastaniso.group_pairs(x, labels))


def test_rows_without_a_direction() -> None:
    x = X.clone()
    x[[3, 50]] = 0
    x[7, 2] = math.nan
    with pytest.raises(fastaniso.InvalidRowsError, match="hidden: row 3 is the first"):
        fastaniso.group_pairs(x, LABELS)
    result = fastaniso.group_pairs(x, LABELS, invalid="omit")
    _check(x, LABELS, result)
    assert (result.within.n, result.within.dropped.zero, result.within.dropped.nonfinite) == (117, 2, 1)


def test_one_group_and_groups_of_one_row() -> None:
    one = fastaniso.group_pairs(X, torch.zeros(120, dtype=torch.int64))
    assert np.array_equal(one.within.histogram.total, fastaniso.cosine_histogram(X).total)
    assert one.between.pairs == 0
    alone = fastaniso.group_pairs(X, torch.arange(120))
    assert (alone.within.pairs, alone.between.pairs) == (0, 120 * 119 // 2)
    assert alone.within.min is not None
    assert (math.isnan(alone.within.min.value), *alone.within.min[1:]) == (True, -1, -1)
    assert "between groups" in str(alone)
    content = json.loads(alone.to_json())
    assert (content["groups"], content["between"]["pairs"], content["between"]["min"]) == (120, 120 * 119 // 2, None)


def test_merging_many_states_is_merging_one_after_another() -> None:
    asked = fastaniso.Pairs.empty(7, bins=64, uniformity_t=(2.0,), thresholds=(0.3,))
    rows = as_rows(torch.cat((X, X[:40])))
    parts = [
        dispatch.pairs(part, bins=64, uniformity_t=(2.0,), thresholds=(0.3,), start=start)
        for start, part in rows.blocks(23)
    ]
    together, one_by_one = grouped._merged([asked, *parts, asked]), functools.reduce(fastaniso.Pairs.merge, parts)
    for name in ("counts", "histogram", "above", "extrema", "extrema_at"):
        assert torch.equal(getattr(together, name), getattr(one_by_one, name)), name
    torch.testing.assert_close(together.moments, one_by_one.moments, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together.exponentials, one_by_one.exponentials)
    assert together.provenance == one_by_one.provenance


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(1, 8), st.integers(0, 2**32), st.sampled_from([torch.float32, torch.bfloat16]))
def test_nothing_is_counted_twice_or_goes_negative(n: int, groups: int, seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Small whole numbers: many equal cosines, and cosines exactly at the edges of bins.
    x = torch.randint(-2, 3, (n, 4), generator=generator).to(dtype)
    labels = torch.randint(0, groups, (n,), generator=generator)
    result = fastaniso.group_pairs(x, labels, bins=64, thresholds=(0.0, 0.5), invalid="omit")
    _check(x, labels, result)


def test_a_backend_that_contradicts_itself_is_found_out() -> None:
    asked = fastaniso.Pairs.empty(7, bins=64)
    more = replace(asked, histogram=torch.ones(64, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="a bin holds more pairs within groups than pairs at all"):
        grouped._difference(asked, more)


def test_memory_limit_and_progress() -> None:
    with pytest.raises(MemoryError, match="memory_limit: 9 MB given"):
        fastaniso.group_pairs(X, LABELS, memory_limit="9 MB")
    calls: list[Progress] = []
    fastaniso.group_pairs(X, LABELS, progress=calls.append)
    assert [call.stage for call in calls] == ["pairs", "pairs within groups"]
    assert [call.share for call in calls] == [1, 1]
