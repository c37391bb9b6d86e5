"""Attention watched live: what a pass leaves behind, masks, several passes, and the model as it was."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
import tiny
import torch
import transformers
from torch import Tensor, nn

from fastaniso.models.attention.watch import attention_watched
from fastaniso.scanning.attention.probe import probe_attention

_COMMON = {
    "vocab_size": 99,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.3,
}


def bert(layers: int = 2, **options: Any) -> Any:
    torch.manual_seed(1)
    config = transformers.BertConfig(**_COMMON, num_hidden_layers=layers)
    return transformers.AutoModel.from_config(config, **options).eval()


def llama(layers: int = 2, **options: Any) -> Any:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(**_COMMON, num_key_value_heads=2, num_hidden_layers=layers)
    return transformers.AutoModel.from_config(config, **options).eval()


IDS = torch.randint(4, 99, (3, 9), generator=torch.Generator().manual_seed(2))
KEEP = torch.ones(3, 9, dtype=torch.bool)
KEEP[0, 5:] = False


def hooks(model: nn.Module) -> list[int]:
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def names(model: nn.Module) -> list[Any]:
    files = [sys.modules[cls.__module__] for cls in {type(m) for m in model.modules()}]
    return [
        getattr(file, name, None) for file in files for name in ("ALL_ATTENTION_FUNCTIONS", "eager_attention_forward")
    ]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("make", [bert, llama])
def test_the_model_is_as_it_was_also_after_an_exception(make: Any, implementation: str) -> None:
    model = make(attn_implementation=implementation)
    before, held, outside = hooks(model), names(model), model(IDS).last_hidden_state
    with torch.no_grad(), probe_attention(model):
        assert hooks(model) != before
        inside = model(IDS).last_hidden_state
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)
    assert hooks(model) == before
    assert all(a is b for a, b in zip(names(model), held, strict=True))

    def fail(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), attention_watched(model, fail):
        model(IDS)
    with pytest.raises(IndexError), probe_attention(model):
        model(IDS + 1000)
    assert hooks(model) == before
    assert all(a is b for a, b in zip(names(model), held, strict=True))
    torch.testing.assert_close(model(IDS).last_hidden_state, outside, rtol=0, atol=0)


def test_gradients_are_those_of_the_model_alone() -> None:
    model = llama()
    model(IDS).last_hidden_state.sum().backward()
    alone = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with probe_attention(model) as probe:
        output = model(IDS).last_hidden_state
    output.sum().backward()
    assert probe.results()["layers.0.self_attn"].attention.rows == (27,) * 4
    for parameter, expected in zip(model.parameters(), alone, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=0, atol=0)


def test_what_checkpointing_computes_again_is_not_counted_again() -> None:
    model = llama().train()
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    with probe_attention(model) as probe:
        model(IDS).last_hidden_state.sum().backward()
    assert probe.results()["layers.1.self_attn"].attention.rows == (27,) * 4


def test_two_probes_and_two_models_of_one_file_do_not_mix() -> None:
    one, other = bert(), bert(layers=1)
    held = names(one)
    with torch.no_grad(), probe_attention(one) as first, probe_attention(other) as second:
        with probe_attention(one) as inner:
            one(IDS)
        other(IDS[:1])
        one(IDS)
    assert first.results()["encoder.layer.1.attention.self"].attention.rows == (54,) * 4
    assert inner.results()["encoder.layer.1.attention.self"].attention.rows == (27,) * 4
    assert [site.attention.rows for site in second.results().sites] == [(9,) * 4]
    assert all(a is b for a, b in zip(names(one), held, strict=True))


def rows_and_keys(probe: Any) -> tuple[int, int]:
    site = probe.results().sites[0]
    return site.attended.queries.n, site.attention.scores[0]


@pytest.mark.parametrize(("make", "pairs"), [(bert, 5 * 5 + 2 * 81), (llama, 15 + 2 * 45)])
def test_positions_are_those_of_the_models_own_attention_mask(make: Any, pairs: int) -> None:
    model = make()
    with torch.no_grad(), probe_attention(model) as probe:
        model(IDS, attention_mask=KEEP.long())
    assert rows_and_keys(probe) == (23, pairs)
    with torch.no_grad(), probe_attention(model) as positional:
        model(IDS, KEEP.long())
    assert rows_and_keys(positional) == (23, pairs)


def test_positions_can_be_given_and_what_is_attended_to_stays_the_models() -> None:
    model, chosen = bert(), KEEP.clone()
    chosen[:, 0] = chosen[:, 4] = False
    with torch.no_grad(), probe_attention(model) as probe:
        probe.mask(chosen)
        model(IDS, attention_mask=KEEP.long())
        assert rows_and_keys(probe) == (17, 3 * 5 + 2 * 7 * 9)
        probe.mask(None)
        probe.reset()
        model(IDS, attention_mask=KEEP.long())
        assert rows_and_keys(probe) == (23, 5 * 5 + 2 * 81)
    with pytest.raises(TypeError, match=r"mask: expected bool \(sequences, positions\), got torch.int64\(3, 9\)"):
        probe.mask(KEEP.long())


def test_the_vectors_themselves_can_be_had() -> None:
    model, told = llama(), {}
    options = {"attention_mask": KEEP.long()}
    with probe_attention(model, each=lambda path, queries, keys: told.update({path: (queries, keys)})) as probe:
        model(IDS, **options)
    result = probe.results()
    assert list(told) == [site.path for site in result.sites] == ["layers.0.self_attn", "layers.1.self_attn"]
    for site in result.sites:
        queries, keys = told[site.path]
        assert (queries.shape, keys.shape) == ((3, 4, 9, 8), (3, 2, 9, 8))  # keys as the model has them: two heads
        assert not queries.requires_grad
        for vectors, measured in ((queries, site.attended.queries), (keys, site.attended.keys)):
            means = vectors.double().transpose(1, 2)[KEEP].mean(0)
            assert measured.norm_of_mean == pytest.approx(means.norm(dim=1).tolist(), rel=1e-6)


def test_a_cache_counts_new_keys_once_and_attends_to_all() -> None:
    model = llama()
    with torch.no_grad(), probe_attention(model) as whole:
        model(IDS)
    with torch.no_grad(), probe_attention(model) as parts:
        cache = tiny.cache_of(model(IDS[:, :6], use_cache=True))
        for i in (6, 7, 8):
            cache = tiny.cache_of(model(IDS[:, i : i + 1], use_cache=True, **tiny.given_cache(model, cache)))
    for a, b in zip(parts.results().sites, whole.results().sites, strict=True):
        assert a.attended.keys.n == b.attended.keys.n == 27
        assert a.attention.scores == b.attention.scores
        assert a.attention.entropy == pytest.approx(b.attention.entropy, abs=1e-5)
        assert a.projected.keys.mean_cosine == pytest.approx(b.projected.keys.mean_cosine, abs=1e-6)


def test_a_mask_that_is_no_pattern_is_refused() -> None:
    model = llama()
    packed = torch.block_diag(torch.ones(4, 4), torch.ones(5, 5)).tril().bool().expand(3, 1, 9, 9)
    with torch.no_grad(), probe_attention(model) as probe:
        model(IDS, attention_mask=packed)
    with pytest.raises(ValueError, match=r"none of the 2 attentions of LlamaModel .* packed, prefixed or blocked"):
        probe.results()


def test_a_mask_of_each_head_is_refused() -> None:
    model = llama()
    causal = torch.ones(9, 9).tril().bool().expand(3, 4, 9, 9).clone()
    causal[:, 2, :, 0] = False
    with torch.no_grad(), probe_attention(model) as probe:
        model(IDS, attention_mask=causal)
    with pytest.raises(ValueError, match="its mask hides other keys from one head than from another"):
        probe.results()


def test_masks_that_stop_being_a_pattern_are_found_out_in_the_end() -> None:
    model = bert(layers=1)
    with torch.no_grad(), probe_attention(model) as probe:
        model(IDS, attention_mask=KEEP.long())
        for module in model.modules():
            module.is_decoder = module.is_causal = True
        model.config.is_decoder = True
        model(IDS, attention_mask=KEEP.long())
    result = probe.results()
    assert result.sites == ()
    assert result.states == {}
    (reason,) = result.refused.values()
    assert reason.startswith("later masks hid other keys than the first")
    assert "is left out: later masks" in str(result)


def test_a_window_that_shows_late_is_not_taken_for_none() -> None:
    config = transformers.MistralConfig(**_COMMON, num_key_value_heads=2, num_hidden_layers=1, sliding_window=5)
    model = transformers.AutoModel.from_config(config).eval()
    with torch.no_grad(), probe_attention(model) as probe:
        model(IDS[:, :4], attention_mask=torch.ones(3, 4).long())
        model(IDS, attention_mask=KEEP.long())
    (site,) = probe.results().sites
    assert site.attention.window == 5
    assert site.attention.rows == (12 + 23,) * 4


def test_queries_and_keys_of_all_layers_are_never_held() -> None:
    model = llama(layers=4)
    held: list[int] = []

    def count(*_: object) -> None:
        # States are float64 and int64: of float32 there are the model's own and what is held of a pass.
        held.append(sum(type(x) is Tensor and x.dtype == torch.float32 for x in gc.get_objects()))

    with torch.no_grad(), probe_attention(model) as probe:
        model(IDS, use_cache=False)
        for layer in model.layers:
            layer.mlp.register_forward_hook(count)
        model(IDS, use_cache=False)
    assert len(held) == len(probe.results().sites) == 4
    assert len(set(held[1:])) == 1  # the first block reads what nobody else holds


def test_the_state_does_not_grow_with_what_is_read() -> None:
    model = bert()

    def size(probe: Any) -> int:
        tensors = [t for state in probe.results().states.values() for t in state.to_dict().values()]
        return sum(t.nbytes for t in tensors if isinstance(t, Tensor))

    with torch.no_grad(), probe_attention(model) as probe:
        model(IDS)
        once = size(probe)
        for _ in range(3):
            model(IDS)
    assert size(probe) == once


def test_a_compiled_model_is_refused_with_the_remedy() -> None:
    """What ``torch.compile`` and ``Module.compile`` leave on a module, without the seconds that compiling takes."""
    model, wrapped = bert(layers=1), nn.Module()
    wrapped._orig_mod = model
    with pytest.raises(ValueError, match=r"Module is compiled, .* before torch\.compile \(model\._orig_mod\)"):
        probe_attention(wrapped)
    model.encoder.layer[0]._compiled_call_impl = model.encoder.layer[0]._call_impl
    with pytest.raises(ValueError, match=r"encoder\.layer\.0 is compiled"):
        probe_attention(model)
