"""Queries and keys of every head as rows: each head says what its rows say alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import fastaniso
from fastaniso.ops import dispatch as ops
from fastaniso.rows import as_rows
from fastaniso.state import HeadMoments, StateMismatchError, load_state, save_state
from fastaniso.statistics.host import InvalidRowsError
from fastaniso.statistics.queries_keys import describe_queries_keys

GENERATOR = torch.Generator().manual_seed(5)
Q, K = torch.randn(3, 4, 7, 6, generator=GENERATOR) + 0.4, torch.randn(3, 2, 7, 6, generator=GENERATOR) - 0.3
KEEP = torch.rand(3, 7, generator=GENERATOR) > 0.3


def head_moments(x: Tensor, keep: Tensor | None = KEEP) -> HeadMoments:
    return HeadMoments.of([ops.moments(as_rows(head, keep)) for head in x.unbind(1)])


def test_each_head_says_what_its_rows_say_alone() -> None:
    found = describe_queries_keys(
        head_moments(Q), head_moments(K), scale=0.5, position="no rotation", invalid="raise", name="block.0"
    )
    for vectors, rows in ((found.queries, Q), (found.keys, K)):
        for head in range(vectors.heads):
            expected = fastaniso.describe(rows[:, head], mask=KEEP, backend="reference")
            assert vectors.n == expected.n
            assert vectors.mean_cosine[head] == pytest.approx(expected.mean_cosine, abs=1e-6)
            assert vectors.norm_of_mean[head] == pytest.approx(expected.drift.norm_of_mean, rel=1e-6)
            assert vectors.relative[head] == pytest.approx(expected.drift.relative, rel=1e-6)
            assert vectors.unit[head] == pytest.approx(expected.drift.unit, rel=1e-6)
            assert vectors.mean_norm[head] == pytest.approx(expected.norms.mean, rel=1e-6)


def test_means_against_each_other_follow_the_grouped_query_mapping() -> None:
    found = describe_queries_keys(
        head_moments(Q), head_moments(K), scale=0.5, position="no rotation", invalid="raise", name="block.0"
    )
    mean_q, mean_k = (x.transpose(1, 2)[KEEP].double().mean(0) for x in (Q, K))
    for head in range(4):
        q, k = mean_q[head], mean_k[head // 2]
        assert found.cosine_of_means[head] == pytest.approx(float(torch.cosine_similarity(q, k, dim=0)), abs=1e-6)
        assert found.score_of_means[head] == pytest.approx(float(0.5 * q @ k), rel=1e-5)
    assert min(found.cosine_of_means) < 0
    assert found.absolute_cosine_of_means == pytest.approx(sum(abs(c) for c in found.cosine_of_means) / 4)


def test_the_states_merge_and_are_stored(tmp_path: Path) -> None:
    parts = [head_moments(Q[i : i + 1], KEEP[i : i + 1]) for i in range(3)]
    merged = HeadMoments.empty(6, 4).merge(parts[2]).merge(parts[0]).merge(parts[1])
    whole = head_moments(Q)
    for name in ("counts", "totals", "sums"):
        torch.testing.assert_close(getattr(merged, name), getattr(whole, name), rtol=1e-6, atol=1e-6)
    save_state(merged, tmp_path / "q.safetensors")
    loaded = load_state(tmp_path / "q.safetensors")
    assert isinstance(loaded, HeadMoments)
    assert torch.equal(loaded.sums, merged.sums)
    assert torch.equal(loaded.head(2).totals, merged.totals[2])
    with pytest.raises(StateMismatchError, match="heads 4 and 2 do not merge"):
        merged.merge(head_moments(K))


def test_a_head_that_cannot_be_normalised_is_named() -> None:
    broken = Q.clone()
    broken[1, 2, 4] = 0
    keep = torch.ones_like(KEEP)
    states = head_moments(broken, keep), head_moments(K, keep)
    options = {"scale": 1.0, "position": "no rotation", "name": "block.3"}
    with pytest.raises(InvalidRowsError, match=r"block\.3 queries of head 2: row 11 is zero"):
        describe_queries_keys(*states, invalid="raise", **options)
    found = describe_queries_keys(*states, invalid="omit", **options)
    assert found.queries.dropped.zero == 1
    assert found.keys.dropped.zero == 0
