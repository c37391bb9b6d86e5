"""The attention op: every instruction set × dtype × named case against float64 maps of the same rounded inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import attention_bounds
import pytest
import torch
from attention_cases import CASES, Case, make
from cases import DTYPES
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastaniso.ops import dispatch
from fastaniso.state import Attention, StateMismatchError

ASKED: dict[str, Any] = {"bins": 100, "score_range": (-6.0, 5.0), "positions": 5}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """For the reference: of maps this small its threads would spend their time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def state_of(case: Case, backend: str = "cpu", **options: Any) -> Attention:
    return dispatch.attention(case.heads, **case.how, **{**ASKED, **options}, backend=backend)  # type: ignore[arg-type]


def assert_same_bits(a: Attention, b: Attention) -> None:
    for name in Attention._tensors:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(isa: str, dtype: str, case: str) -> None:
    given = make(case, dtype)
    attention_bounds.check(state_of(given), state_of(given, "reference"), given.heads)


@pytest.mark.parametrize("keys", [1, 2, 3, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 97, 255, 1024])
def test_any_number_of_keys(isa: str, keys: int) -> None:
    g = torch.Generator().manual_seed(keys)
    case = Case(torch.randn(1, 2, 9, 6, generator=g), torch.randn(1, 2, keys, 6, generator=g))
    attention_bounds.check(state_of(case), state_of(case, "reference"), case.heads)


def test_equal_scores_have_the_logarithm_of_their_number(isa: str) -> None:
    state = state_of(make("equal_scores", "f32"))
    keys = torch.arange(1, 68, dtype=torch.float64)
    torch.testing.assert_close(state.rows[:, 0], keys.log().sum().expand(2), rtol=1e-14, atol=0)
    assert (state.rows[:, 1] - 66).abs().max() < 1e-12  # all but the row of one key
    assert (state.counts[:, 4] == 1).all()
    assert (state.rows[:, 2:] - (1 / keys).sum()).abs().max() < 1e-12


def test_one_hot_rows_have_no_entropy(isa: str) -> None:
    state = state_of(make("one_hot", "f32"))
    assert (state.rows == torch.tensor([0.0, 0.0, 48.0, 0.0, 0.0])).all()


def test_one_key_is_all_there_is(isa: str) -> None:
    state = state_of(make("one_key", "f32"))
    assert (state.counts[:, 4] == state.counts[:, 0]).all()
    assert (state.rows == torch.tensor([0.0, 0.0, 18.0, 18.0, 18.0])).all()
    assert (state.received[:, 0] == 18).all()


def test_scores_on_the_edges_of_the_range(isa: str) -> None:
    # Scores −2, −1, 0, 1, 2 with bins [−1, 0) and [0, 1]: one below, one above, and the last edge belongs to its bin.
    case = Case(torch.ones(1, 1, 3, 1), torch.arange(-2.0, 3).view(1, 1, 5, 1), scale=1.0)
    state = state_of(case, bins=2, score_range=(-1.0, 1.0))
    assert state.histogram.tolist() == [[3, 6]]
    assert state.counts[:, 6:].tolist() == [[3, 3]]


@pytest.mark.parametrize(("dtype", "least"), [("f32", -80.0), ("f64", -700.0)])
def test_exponentials_err_by_two_units_at_most(isa: str, dtype: str, least: float) -> None:
    x = torch.linspace(least, 0, 20_011, dtype=torch.float64).to(DTYPES[dtype])
    case = Case(torch.ones(1, 1, 1, 1, dtype=x.dtype), x.view(1, 1, -1, 1), scale=1.0)
    state = state_of(case, positions=len(x))
    weights = state.received[0] / state.rows[0, 2]  # the largest softmax is one over the sum of weights
    error = (weights / x.double().exp() - 1).abs().max() / attention_bounds.rounding(x.dtype)
    # Two units in the last place are four roundings; one over the sum, and the product with it, are two more. Of
    # float64, the reference's exponential and quotients err, too.
    assert error <= (6 if dtype == "f32" else 10)


@pytest.mark.parametrize("numbers", ["normal", "ties", "exponential", "two_ends", "almost_all_equal", "tiny"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_medians_are_those_of_sorted_scores(isa: str, dtype: str, numbers: str) -> None:
    """Keys of one number are the scores themselves."""
    g = torch.Generator().manual_seed(5)
    for count in (*range(1, 70), 500, 501, 3000):
        x = torch.randn(count, generator=g, dtype=torch.float64)
        x = {
            "normal": x,
            "ties": x.mul(2).round(),
            "exponential": x.exp(),
            "two_ends": x.sign() * 30 + x / 100,
            "almost_all_equal": torch.where(x > 2, x, 0.5),
            "tiny": x * 1e-40,
        }[numbers].to(DTYPES[dtype])
        case = Case(torch.ones(1, 1, 1, 1, dtype=x.dtype), x.view(1, 1, count, 1), scale=1.0)
        state = state_of(case)
        softmax = (x.double() - x.double().max()).exp() / (x.double() - x.double().max()).exp().sum()
        ordered = softmax.sort().values
        middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
        # Z of weights in float32: each of two roundings, and their sum's.
        assert abs(state.rows[0, 3] / middle - 1) < 40 * attention_bounds.rounding(x.dtype), count


@pytest.mark.parametrize("case", ["causal", "masked", "grouped_queries", "long_rows", "not_finite"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_any_number_of_threads_gives_the_same_bits(case: str, dtype: str) -> None:
    given = make(case, dtype)
    # Enough of it for several threads to have work.
    given = replace(given, queries=given.queries.repeat(1, 4, 1, 1), keys=given.keys.repeat(1, 4, 1, 1))
    alone = state_of(given)
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        assert_same_bits(state_of(given), alone)


def test_any_strides() -> None:
    """As models hand them out: (B, T, H, d) transposed, one tensor of queries, keys and values, heads expanded."""
    fused = torch.randn(2, 60, 3, 4, 16)
    queries, keys, _ = (fused[:, :, part].transpose(1, 2) for part in range(3))
    case = Case(queries, keys, causal=True)
    assert_same_bits(state_of(case), state_of(replace(case, queries=queries.contiguous(), keys=keys.contiguous())))
    expanded = keys[:, :1].expand(-1, 4, -1, -1)
    assert_same_bits(state_of(replace(case, keys=expanded)), state_of(replace(case, keys=keys[:, :1])))


def _cut(case: Case, batch: slice, queries: slice, keys: slice) -> Case:
    def part(mask: Tensor | None, which: slice) -> Tensor | None:
        return None if mask is None else mask[batch, which]

    return replace(
        case,
        queries=case.queries[batch, :, queries],
        keys=case.keys[batch, :, keys],
        query_mask=part(case.query_mask, queries),
        key_mask=part(case.key_mask, keys),
    )


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    cuts=st.lists(st.integers(0, 30), max_size=3),
    window=st.sampled_from([None, 1, 6]),
    masked=st.booleans(),
)
def test_parts_merge_to_the_whole(seed: int, cuts: list[int], window: int | None, masked: bool) -> None:
    """Sequences one by one, and stretches of queries with the keys up to them."""
    g = torch.Generator().manual_seed(seed)
    shape = {"query_mask": torch.rand(3, 30, generator=g) > 0.2, "key_mask": torch.rand(3, 30, generator=g) > 0.2}
    case = Case(
        torch.randn(3, 4, 30, 5, generator=g, dtype=torch.float64),
        torch.randn(3, 2, 30, 5, generator=g, dtype=torch.float64),
        **(shape if masked else {}),
        causal=True,
        window=window,
    )
    whole = state_of(case, source="texts")
    merged = Attention.empty(5, 4, causal=True, window=window, **ASKED)
    for b in range(3):
        for start, stop in pairwise([0, *sorted(cuts), 30]):
            part = _cut(case, slice(b, b + 1), slice(start, stop), slice(0, stop))
            merged = merged.merge(state_of(part, source="texts", start=30 * b + start))
    for name in ("counts", "histogram", "visible"):
        assert torch.equal(getattr(merged, name), getattr(whole, name)), name
    for name in ("scores", "rows", "received"):
        torch.testing.assert_close(getattr(merged, name), getattr(whole, name), rtol=1e-12, atol=1e-12)
    assert merged.coverage == whole.coverage
    with pytest.raises(StateMismatchError, match="count them twice"):
        merged.merge(whole)


def test_what_does_not_match_does_not_merge() -> None:
    case = make("causal", "f32")
    state = state_of(case)
    for other, message in (
        (state_of(case, bins=50), "states of bins 100 and 50 do not merge"),
        (state_of(case, positions=4), "states of positions 5 and 4"),
        (state_of(case, score_range=(-6.0, 6.0)), "states of score_range"),
        (state_of(replace(case, causal=False)), "states of causal True and False"),
        (state_of(replace(case, window=3)), "states of window None and 3"),
        (state_of(replace(case, scale=1.0)), "states of scale"),
        (state_of(make("grouped_queries", "f32")), "dimension 24 and 16"),
        (state_of(replace(case, queries=case.queries[:, :1], keys=case.keys[:, :1])), "states of heads 2 and 1"),
    ):
        with pytest.raises(StateMismatchError, match=message):
            state.merge(other)


def test_opcheck() -> None:
    queries, keys = torch.randn(2, 4, 7, 6), torch.randn(2, 2, 9, 6)
    mask = torch.rand(2, 7) > 0.3, torch.rand(2, 9) > 0.3
    for arguments in (
        (queries, keys, *mask, 0.4, True, 3, 16, -4.0, 4.0, 5, "cpu"),
        (queries.bfloat16(), keys.bfloat16(), None, None, 0.4, False, None, 0, -4.0, 4.0, 0, "cpu"),
        (queries.double(), keys.double(), None, mask[1], 1.0, False, None, 4, -4.0, 4.0, 64, "reference"),
    ):
        torch.library.opcheck(torch.ops.fastaniso.attention.default, arguments)


def test_heads_read_the_keys_of_their_group() -> None:
    given = make("grouped_queries", "f32")
    repeated = replace(given, keys=given.keys.repeat_interleave(3, 1))
    assert_same_bits(state_of(given), state_of(repeated))
    by_head = state_of(replace(given, queries=given.queries[:, 3:4], keys=given.keys[:, 1:]))
    whole = state_of(given)
    assert torch.equal(whole.rows[3:4], by_head.rows)
