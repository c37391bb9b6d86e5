"""Queries and keys of every head as rows: each head says what its rows say alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import fastaniso
from fastaniso.ops import dispatch as ops
from fastaniso.rows import as_rows
from fastaniso.scanning.attention.probe import probe_attention
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


def tiny(config: Any, **options: Any) -> Any:
    torch.manual_seed(1)
    return transformers.AutoModel.from_config(config, **options).eval()


COMMON = {
    "vocab_size": 99,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "initializer_range": 0.3,
}


def gpt_neox(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    q, k, _ = module.query_key_value(x).view(*x.shape[:2], 4, 3, 8).unbind(3)
    return q, k


def phi3(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    q, k, _ = module.qkv_proj(x).split((32, 16, 16), -1)
    return q.unflatten(-1, (4, 8)), k.unflatten(-1, (2, 8))


def llama(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return module.q_proj(x).unflatten(-1, (4, 8)), module.k_proj(x).unflatten(-1, (2, 8))


def qwen3(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    q, k = llama(module, x)
    return module.q_norm(q), module.k_norm(k)


def falcon(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    by_group = module.query_key_value(x).view(*x.shape[:2], 2, 4, 8)
    return by_group[..., :2, :].flatten(2, 3), by_group[..., 2, :]


ROTATED = {
    "gpt_neox": (lambda: transformers.GPTNeoXConfig(**COMMON), "GPTNeoXAttention", gpt_neox),
    "phi3": (lambda: transformers.Phi3Config(**COMMON, num_key_value_heads=2), "Phi3Attention", phi3),
    "llama": (lambda: transformers.LlamaConfig(**COMMON, num_key_value_heads=2), "LlamaAttention", llama),
    "qwen3": (lambda: transformers.Qwen3Config(**COMMON, num_key_value_heads=2, head_dim=8), "Qwen3Attention", qwen3),
    "falcon": (
        lambda: transformers.FalconConfig(
            **COMMON, num_kv_heads=2, new_decoder_architecture=True, alibi=False, num_ln_in_parallel_attn=1
        ),
        "FalconAttention",
        falcon,
    ),
}


@pytest.mark.parametrize("family", ROTATED)
def test_queries_and_keys_before_their_rotation_are_those_of_the_projections(family: str) -> None:
    config, name, split = ROTATED[family]
    model = tiny(config())
    module = next(m for m in model.modules() if type(m).__name__ == name)
    taken = []
    module.register_forward_pre_hook(
        lambda _, args, kwargs: taken.append(kwargs.get("hidden_states", args[0] if args else None)), with_kwargs=True
    )
    ids, keep = torch.randint(4, 99, (3, 9)), torch.ones(3, 9, dtype=torch.bool)
    keep[1, 6:] = False
    with torch.no_grad(), probe_attention(model) as probe:
        model(input_ids=ids, attention_mask=keep.long())
        queries, keys = split(module, taken[0])
    (site,) = probe.results().sites
    assert site.attended.position == "after rotation"
    assert site.projected is not None
    assert site.projected.position == "before rotation"
    for vectors, rows in ((site.projected.queries, queries), (site.projected.keys, keys)):
        assert vectors.n == int(keep.sum())
        for head in range(vectors.heads):
            expected = fastaniso.describe(rows[:, :, head].contiguous(), mask=keep, backend="reference")
            assert vectors.mean_cosine[head] == pytest.approx(expected.mean_cosine, abs=1e-6)
            assert vectors.norm_of_mean[head] == pytest.approx(expected.drift.norm_of_mean, rel=1e-5)
    assert (site.heads, site.key_heads) == (4, keys.shape[2])
    # A rotation keeps lengths and moves means.
    assert site.attended.queries.mean_norm == pytest.approx(site.projected.queries.mean_norm, rel=1e-5)
    assert site.attended.keys.norm_of_mean != pytest.approx(site.projected.keys.norm_of_mean, rel=1e-3)


def test_rotated_queries_and_keys_are_those_that_transformers_rotates() -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    model = tiny(transformers.LlamaConfig(**COMMON, num_key_value_heads=2))
    module = model.layers[0].self_attn
    ids = torch.randint(4, 99, (2, 9))
    with torch.no_grad(), probe_attention(model) as probe:
        model(input_ids=ids)
        x = model.layers[0].input_layernorm(model.embed_tokens(ids))
        q, k = (y.transpose(1, 2) for y in llama(module, x))
        queries, keys = apply_rotary_pos_emb(q, k, *model.rotary_emb(x, torch.arange(9)[None]))
    (site,) = probe.results().sites
    for vectors, rows in ((site.attended.queries, queries), (site.attended.keys, keys)):
        for head in range(vectors.heads):
            expected = fastaniso.mean_cosine(rows[:, head].contiguous())
            assert vectors.mean_cosine[head] == pytest.approx(expected, abs=1e-6)
    scores = (queries @ keys.repeat_interleave(2, 1).mT) / 8**0.5
    seen = torch.ones(9, 9, dtype=torch.bool).tril()
    for head in range(4):
        ours = scores[:, head, seen].double()
        assert site.attention.score_mean[head] == pytest.approx(float(ours.mean()), abs=1e-6)
        assert site.attention.score_variance[head] == pytest.approx(float(ours.var(correction=0)), rel=1e-5)
        assert site.attention.score_max[head] == pytest.approx(float(ours.max()), rel=1e-5)


def test_scores_with_a_position_bias_are_given_without_it_and_nothing_of_their_softmax() -> None:
    model = tiny(
        transformers.T5Config(
            **{k: COMMON[k] for k in ("vocab_size", "pad_token_id", "eos_token_id")},
            **{"d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4, "num_layers": 1, "decoder_start_token_id": 0},
        )
    )
    ids = torch.randint(4, 99, (2, 9))
    with torch.no_grad(), probe_attention(model) as probe:
        model(input_ids=ids, decoder_input_ids=ids[:, :5])
    result = probe.results()
    by_kind = {site.path.rpartition(".")[2] + site.path.partition(".")[0]: site for site in result.sites}
    assert list(by_kind) == ["SelfAttentionencoder", "SelfAttentiondecoder", "EncDecAttentiondecoder"]
    for name, site in by_kind.items():
        biased = name.startswith("Self")
        assert site.changes == (("a position bias",) if biased else ())
        assert all(math.isnan(value) == biased for value in (*site.attention.entropy, *site.attention.row_max))
        assert not any(map(math.isnan, (*site.attention.score_mean, *site.attended.queries.mean_cosine)))
    assert by_kind["EncDecAttentiondecoder"].kind == "cross"
    assert any("a position bias: scores are given without it" in note for note in result.notes)


def test_beit_adds_its_bias_to_the_mask_and_it_is_found() -> None:
    model = tiny(
        transformers.BeitConfig(
            hidden_size=32,
            num_attention_heads=4,
            intermediate_size=48,
            num_hidden_layers=1,
            image_size=16,
            patch_size=4,
            use_relative_position_bias=True,
        )
    )
    for name, parameter in model.named_parameters():
        if "relative_position_bias_table" in name:
            torch.nn.init.normal_(parameter)
    # The class token of a random BEiT is zero, and so are its queries.
    with torch.no_grad(), probe_attention(model, invalid="omit") as probe:
        model(torch.randn(2, 3, 16, 16))
    (site,) = probe.results().sites
    assert site.attended.queries.dropped.zero == 2 * 4
    assert site.changes == ("a position bias",)
    assert math.isnan(site.attention.sink_rate)


def test_a_model_without_attention_is_refused_with_the_reason() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    with torch.no_grad(), probe_attention(model) as probe:
        model(torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"Sequential made no attention .* such as a CNN, has no queries and keys"):
        probe.results()


def test_a_first_token_alone_does_not_tell_that_nothing_is_rotated() -> None:
    model = tiny(transformers.LlamaConfig(**COMMON, num_key_value_heads=2))
    with torch.no_grad(), probe_attention(model) as probe:
        for length in (1, 6):
            model(input_ids=torch.arange(4, 4 + length)[None])
    (site,) = probe.results().sites
    assert site.attended.position == "after rotation"
    assert site.projected is not None
    assert (site.attended.queries.n, site.projected.queries.n) == (7, 6)


def test_padding_with_states_of_zero_hides_no_rotation() -> None:
    model = tiny(transformers.LlamaConfig(**COMMON, num_key_value_heads=2))
    keep = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    with torch.no_grad(), probe_attention(model) as probe:
        model(input_ids=torch.randint(4, 99, (2, 6)) * keep, attention_mask=keep)  # the pad token's embedding is zero
    (site,) = probe.results().sites
    assert site.attended.position == "after rotation"
