"""``fastaniso.attention``: its numbers, what it refuses, and what it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fastaniso
from fastaniso.heads import as_heads
from fastaniso.planning.attention import plan_attention

G = torch.Generator().manual_seed(3)
QUERIES = torch.randn(2, 4, 90, 16, generator=G) * 1.5
KEYS = torch.randn(2, 2, 90, 16, generator=G)
REAL = torch.arange(90) < torch.tensor([[90], [71]])


def maps(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and attention (B, H, T, S) of causal attention as eager models compute it, in float64."""
    scores = queries.double() @ keys.double().repeat_interleave(2, 1).mT / 4
    future = torch.ones(90, 90, dtype=torch.bool).triu(1)
    return scores, scores.masked_fill(future, -torch.inf).softmax(-1)


def test_statistics_are_those_of_the_maps() -> None:
    """Causal, two heads a key, the second sequence padded on the right: every number from full maps."""
    result = fastaniso.attention(QUERIES, KEYS, query_mask=REAL, key_mask=REAL, causal=True, score_range=(-4, 4))
    scores, attention = maps(QUERIES, KEYS)
    seen = torch.ones(90, 90, dtype=torch.bool).tril()
    for head in range(4):
        rows = attention[:, head][REAL]  # padding comes after what is real, which cannot see it
        keys = seen.expand(2, 90, 90)[REAL].sum(1)
        entropy = torch.special.entr(rows).sum(1)
        every = scores[:, head][REAL][seen.expand(2, 90, 90)[REAL]]
        medians = torch.tensor([np.median(row[:k].numpy()) for row, k in zip(rows, keys, strict=True)])
        leasts = torch.stack([row[:k].min() for row, k in zip(rows, keys, strict=True)])
        expected = {
            "score_mean": every.mean(),
            "score_variance": every.var(correction=0),
            "score_min": every.min(),
            "score_max": every.max(),
            "entropy": entropy.mean(),
            "normalized_entropy": (entropy / keys.log())[keys > 1].mean(),
            "row_max": rows.amax(1).mean(),
            "row_median": medians.mean(),
            "row_min": leasts.mean(),
        }
        for name, value in expected.items():
            assert getattr(result, name)[head] == pytest.approx(float(value), rel=2e-6, abs=2e-6), name
        visible = torch.stack([REAL[:, k:].sum() for k in range(64)])
        np.testing.assert_array_equal(result.visible[head], visible.numpy())
        np.testing.assert_allclose(result.attention_to[head], (rows.sum(0)[:64] / visible).numpy(), rtol=2e-6)
        counts, edges = np.histogram(every.numpy(), bins=512, range=(-4, 4))
        assert np.abs(result.histogram.counts[head] - counts).sum() <= 2  # a score within rounding of an edge
        np.testing.assert_allclose(result.histogram.edges, edges)
        assert int(result.histogram.below[head]) == int((every < -4).sum())
    assert result.rows == (161,) * 4
    assert result.one_key == (2,) * 4
    assert result.dropped == (19, 0, 0)


def test_a_sink_is_found() -> None:
    """Two of four heads put most of their attention on the first key; padding on the left does not hide it."""
    queries, keys = torch.randn(1, 4, 64, 8), torch.randn(1, 4, 64, 8)
    queries[:, :2, :, 0] = 6
    keys[:, :2, 0] = torch.tensor([8.0, 0, 0, 0, 0, 0, 0, 0])
    result = fastaniso.attention(queries, keys, causal=True)
    assert result.sink_rate == 0.5
    assert result.attention_to[0, 0] > 0.9
    assert result.sink_rates().tolist()[:2] == [0.5, 0.0]
    assert result.sink_rates(0.01)[0] == 1

    def padded(vectors: Tensor) -> Tensor:
        return torch.cat((torch.full((1, 4, 10, 8), torch.nan), vectors), 2)

    real = torch.arange(74)[None] >= 10
    moved = fastaniso.attention(padded(queries), padded(keys), query_mask=real, key_mask=real, causal=True)
    assert moved.dropped == (10, 0, 0)
    np.testing.assert_allclose(moved.attention_to, result.attention_to, rtol=1e-5)
    assert moved.entropy == pytest.approx(result.entropy, rel=1e-6)


def test_numpy_and_low_precision() -> None:
    one = fastaniso.attention(QUERIES, KEYS)
    assert fastaniso.attention(QUERIES.numpy(), KEYS.numpy()).entropy == one.entropy
    half = fastaniso.attention(QUERIES.half(), KEYS.half())
    assert half.entropy == fastaniso.attention(QUERIES.half().float(), KEYS.half().float()).entropy
    assert half.provenance == ("float16 rows, cpu kernel",)
    assert fastaniso.attention(QUERIES.double(), KEYS.double(), backend="reference").entropy == pytest.approx(
        one.entropy, rel=1e-6
    )


def test_the_result_prints_and_is_stored() -> None:
    result = fastaniso.attention(QUERIES, KEYS, causal=True, window=9)
    text = str(result)
    assert "queries    180 of each of 4 heads, 16 numbers" in text
    assert "9 keys, causal; 2 see one key" in text
    assert len(text.splitlines()) == 5 + 2 + 4
    stored = json.loads(result.to_json())
    assert stored["entropy"] == list(result.entropy)
    assert "median" in stored["conventions"]["row_median"]
    assert "attention_to" not in stored
    counts, edges = result.histogram
    assert counts.shape == (4, 512)
    assert len(edges) == 513
    with pytest.raises(ValueError, match="read-only"):
        counts[0, 0] = 1
    assert "all keys" in str(fastaniso.attention(QUERIES, KEYS))


def test_nothing_to_measure() -> None:
    result = fastaniso.attention(QUERIES, KEYS, query_mask=torch.zeros(2, 90, dtype=torch.bool), bins=0, positions=0)
    assert result.rows == (0,) * 4
    assert result.dropped == (180, 0, 0)
    assert all(np.isnan(value) for value in (*result.entropy, *result.score_min, *result.row_median, result.sink_rate))
    assert "null" in result.to_json()
    assert "180 masked dropped" in str(result)


def test_scores_that_are_not_finite() -> None:
    queries = QUERIES.clone()
    queries[1, 2, 5] = torch.nan
    queries[0, 0, 7, 3] = torch.inf
    with pytest.raises(fastaniso.InvalidRowsError, match=r"1 row\(s\) of a head have a score that is NaN or infinite"):
        fastaniso.attention(queries, KEYS)
    result = fastaniso.attention(queries, KEYS, invalid="omit")
    assert result.rows == (179, 180, 179, 180)
    assert result.dropped.nonfinite == 2
    keep = torch.ones(2, 90, dtype=torch.bool)
    keep[1, 5] = keep[0, 7] = False
    assert fastaniso.attention(queries, KEYS, query_mask=keep).rows == (178,) * 4
    with pytest.raises(ValueError, match="invalid: expected 'raise' or 'omit', got 'skip'"):
        fastaniso.attention(queries, KEYS, invalid="skip")
    # Beyond the range of float32, but not of float64.
    huge = torch.full((1, 1, 3, 4), 1e30)
    with pytest.raises(fastaniso.InvalidRowsError, match="finite in float64"):
        fastaniso.attention(huge, huge)
    assert fastaniso.attention(huge.double(), huge.double()).entropy == pytest.approx([np.log(3)])


MASK = torch.ones(2, 90, dtype=torch.bool)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"queries": QUERIES[0]},
            ValueError,
            r"queries: expected \(B, H, T, d\), got shape \(4, 90, 16\); one",
        ),
        ({"queries": QUERIES.long()}, TypeError, "queries: expected float32, .*, got int64; convert them first"),
        ({"queries": QUERIES.tolist()}, TypeError, "queries: expected a torch tensor, .*, got list"),
        ({"queries": QUERIES.transpose(2, 3)}, ValueError, "queries: expected the numbers of a vector side by side"),
        ({"queries": QUERIES[..., :0]}, ValueError, "queries: expected vectors of at least one number"),
        ({"queries": QUERIES[:, :3]}, ValueError, "multiple of that of the keys, 2, got 3; head h reads keys h //"),
        ({"queries": QUERIES[:, :0]}, ValueError, "multiple of that of the keys, 2, got 0"),
        ({"keys": KEYS.double()}, TypeError, "keys: expected the queries' dtype float32, got float64"),
        ({"keys": KEYS[..., :8]}, ValueError, r"keys: expected \(B, G, S, d\) with B = 2 and d = 16"),
        ({"keys": KEYS[:1]}, ValueError, r"keys: expected \(B, G, S, d\) with B = 2"),
        ({"keys": KEYS.to("meta")}, ValueError, "keys: expected them on cpu beside the queries, got meta"),
        ({"query_mask": MASK.int()}, TypeError, r"query_mask: expected bool \(True keeps\), got int32"),
        (
            {"key_mask": MASK[:, 1:]},
            ValueError,
            r"key_mask: expected \(2, 90\), .* of the keys, got \(2, 89\)",
        ),
        ({"key_mask": MASK.to("meta")}, ValueError, "key_mask: expected it on cpu beside the keys, got meta"),
        ({"keys": KEYS[:, :, 1:], "causal": True}, ValueError, "causal attention needs a key at every query, got 90"),
        ({"keys": KEYS[:, :, 1:], "window": 3}, ValueError, "a window needs a key at every query"),
        ({"window": 4}, ValueError, "window: expected an odd number of keys, .* got 4; pass causal=True"),
        (
            {"window": 0, "causal": True},
            ValueError,
            "window: expected the number of keys .* or None, got 0",
        ),
        ({"bins": 9000}, ValueError, "bins: expected a number from 0 to 8192, got 9000"),
        ({"score_range": (1, 1)}, ValueError, r"score_range: expected a lower and a higher score, got \(1, 1\)"),
        ({"positions": -1}, ValueError, "positions: expected a number of first keys, 0 or more, got -1"),
        ({"backend": "numpy"}, ValueError, "backend: expected one of"),
        ({"memory_limit": 1000}, MemoryError, "memory_limit: 1 kB given, .* raise the limit, or ask for less"),
        ({"memory_limit": "much"}, ValueError, "memory_limit: expected bytes or a string"),
    ],
)
def test_what_is_refused(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastaniso.attention(**{"queries": QUERIES, "keys": KEYS, **changed})


LONG = """
import re
import torch, fastaniso
from fastaniso.heads import as_heads
from fastaniso.planning.attention import plan_attention

def memory(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

def peak(call):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark starts again here
    before = memory("VmRSS")
    call()
    return memory("VmHWM") - before

for shape, how in (((1, 1, 20000, 16), {"causal": True}), ((4, 8, 700, 32), {}), ((1, 2, 30000, 64), {"window": 257})):
    queries = torch.randn(shape)
    fastaniso.attention(queries[:, :, :50], queries[:, :, :50])
    how = {"causal": False, "window": None, **how}
    planned = plan_attention(as_heads(queries, queries), **how, bins=512, positions=64)
    print(peak(lambda: fastaniso.attention(queries, queries, **how)), planned.peak_bytes)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's high-water mark")
def test_long_sequences_take_little_memory() -> None:
    """20 000 queries of as many keys: the map would be 1.6 GB; and the plan is a bound that is not far off."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "2"}
    lines = subprocess.run(
        [sys.executable, "-c", LONG],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=Path(__file__).parent.parent,
    ).stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        used, planned = map(int, line.split())
        assert used <= planned + 2**19, line  # half a MiB: pages of code touched for the first time
        assert planned <= 2 * used + 5 * 2**20, line
        assert planned < 24 * 2**20, line


def test_plans_of_other_backends() -> None:
    heads = as_heads(QUERIES, KEYS)
    plan = plan_attention(heads, causal=True, window=None, bins=512, positions=64, backend="reference")
    assert plan.working_bytes > 2 * 90 * 90 * 8
    assert plan.operations > 2 * 4 * 90 * 90 * 16 * 2
