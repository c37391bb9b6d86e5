"""Attention is seen as it is computed: the sums of captured queries and keys are those of ``eager`` attention maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from torch import Tensor, nn

from fastaniso.scanning.attention.probe import probe_attention
from fastaniso.scanning.attention.result import AttentionResult

_TOKENS = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
# Large weights: attention is far from uniform, so that no map passes for another.
_ENCODER = {
    **_TOKENS,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "initializer_range": 0.4,
}
_GROUPED = {**_ENCODER, "num_key_value_heads": 2}


class Family(NamedTuple):
    """How a tiny random model is made, what it is given, and which queries of each of its maps count."""

    config: Callable[[], Any]
    inputs: Callable[[], dict[str, Tensor]]
    causal: bool = False


def ids(padded: str = "right") -> dict[str, Tensor]:
    """Three sequences of 11 positions, two of them padded."""
    mask = torch.ones(3, 11, dtype=torch.long)
    mask[0, 7:], mask[1, 10:] = 0, 0
    mask = mask if padded == "right" else mask.flip(1)
    return {"input_ids": torch.randint(4, 99, (3, 11)), "attention_mask": mask}


def frames() -> dict[str, Tensor]:
    """Speech of two lengths: 19 frames and fewer."""
    mask = torch.ones(2, 400, dtype=torch.long)
    mask[0, 250:] = 0
    return {"input_values": torch.randn(2, 400), "attention_mask": mask}


def whisper() -> dict[str, Tensor]:
    return {"input_features": torch.randn(2, 16, 40), "decoder_input_ids": torch.randint(4, 99, (2, 7))}


FAMILIES = {
    "bert": Family(lambda: transformers.BertConfig(**_ENCODER), ids),
    "roberta": Family(lambda: transformers.RobertaConfig(**_ENCODER), ids),
    "distilbert": Family(
        lambda: transformers.DistilBertConfig(
            **_TOKENS, dim=32, n_heads=4, n_layers=2, hidden_dim=48, initializer_range=0.4
        ),
        ids,
    ),
    "albert": Family(lambda: transformers.AlbertConfig(**_ENCODER, embedding_size=16), ids),
    "gpt2": Family(
        lambda: transformers.GPT2Config(**_TOKENS, n_embd=32, n_layer=2, n_head=4, initializer_range=0.4), ids, True
    ),
    "gpt_neox": Family(lambda: transformers.GPTNeoXConfig(**_ENCODER), ids, True),
    "gpt_neox_padded_on_the_left": Family(lambda: transformers.GPTNeoXConfig(**_ENCODER), lambda: ids("left"), True),
    "llama": Family(lambda: transformers.LlamaConfig(**_GROUPED), ids, True),
    "phi3": Family(lambda: transformers.Phi3Config(**_GROUPED), ids, True),
    "mistral_with_a_window": Family(lambda: transformers.MistralConfig(**_GROUPED, sliding_window=4), ids, True),
    "qwen3_with_normed_keys": Family(lambda: transformers.Qwen3Config(**_GROUPED, head_dim=8), ids, True),
    "vit": Family(
        lambda: transformers.ViTConfig(
            **{k: v for k, v in _ENCODER.items() if k not in _TOKENS}, image_size=16, patch_size=4
        ),
        lambda: {"pixel_values": torch.randn(2, 3, 16, 16)},
    ),
    "wav2vec2": Family(
        lambda: transformers.Wav2Vec2Config(
            **_ENCODER,
            conv_dim=(8, 8),
            conv_kernel=(10, 4),
            conv_stride=(10, 2),
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            num_feat_extract_layers=2,
        ),
        frames,
    ),
    "whisper": Family(
        lambda: transformers.WhisperConfig(
            **{**_TOKENS, "decoder_start_token_id": 1},
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            num_mel_bins=16,
            max_source_positions=20,
            max_target_positions=20,
            init_std=0.4,
        ),
        whisper,
    ),
}


def made(family: Family, implementation: str) -> nn.Module:
    torch.manual_seed(3)
    return transformers.AutoModel.from_config(family.config(), attn_implementation=implementation).eval()


def captured(family: Family, implementation: str) -> tuple[AttentionResult, Any]:
    """The result of a probe in one pass, and the maps of a copy that computes them."""
    torch.manual_seed(7)
    inputs = family.inputs()
    model, eager = made(family, implementation), made(family, "eager")
    with torch.no_grad(), probe_attention(model) as probe:
        seen = model(**inputs)
    with torch.no_grad():
        maps = eager(**inputs, output_attentions=True)
    key = "last_hidden_state"
    keep = inputs.get("attention_mask", torch.ones(1, 1)).bool()
    if seen[key].shape[:2] == keep.shape:
        torch.testing.assert_close(seen[key][keep], maps[key][keep], rtol=1e-3, atol=1e-4)
    return probe.results(), maps


def of_maps(attention: Tensor, keep: Tensor, visible: Tensor) -> dict[str, Tensor]:
    """What maps (B, H, T, S) say of each head over the queries ``keep`` (B, T), of the keys ``visible`` (B, T, S)."""
    rows = attention.double().transpose(1, 2)[keep]  # (n, H, S)
    seen = visible[keep][:, None].expand_as(rows)
    number = seen.sum(-1)
    entropy = -(rows * rows.clamp(min=1e-300).log()).sum(-1)
    several = number[:, 0] > 1
    ordered = rows.masked_fill(~seen, math.inf).sort(-1).values
    middle = torch.stack([ordered.gather(-1, i[..., None])[..., 0] for i in ((number - 1) // 2, number // 2)]).mean(0)
    return {
        "entropy": entropy.mean(0),
        "normalized_entropy": (entropy[several] / number[several].log()).mean(0),
        "row_max": rows.amax(-1).mean(0),
        "row_median": middle.mean(0),
        "row_min": ordered[..., 0].mean(0),
        "first": _to_the_first_key(attention.double(), keep, visible),
    }


def _to_the_first_key(attention: Tensor, keep: Tensor, visible: Tensor) -> Tensor:
    """Mean attention of each head to the first key of a sequence that is no padding, over the queries that see it."""
    given = []
    for maps, counted, sees in zip(attention, keep, visible, strict=True):
        first = int(sees.any(0).nonzero()[0])
        given.append(maps[:, counted & sees[:, first], first])
    return torch.cat(given, 1).mean(1)


def visible_of(keys: Tensor, queries: int, *, causal: bool, window: int | None) -> Tensor:
    """Keys (B, S) that are there, by the place of each query: (B, T, S)."""
    behind = torch.arange(queries)[:, None] - torch.arange(keys.shape[1])
    sees = behind >= 0 if causal else torch.ones_like(behind, dtype=torch.bool)
    return keys[:, None] & (sees if window is None else sees & (behind < window))


def assert_equal(site: Any, attention: Tensor, keep: Tensor, keys: Tensor, *, causal: bool, window: int | None) -> None:
    visible = visible_of(keys, attention.shape[2], causal=causal, window=window)
    expected = of_maps(attention, keep, visible)
    found = site.attention
    assert (found.causal, found.window) == (causal, window)
    assert found.rows == (int(keep.sum()),) * 4
    assert found.scores == (int((visible & keep[:, :, None]).sum()),) * 4
    numbers = {name: torch.tensor(getattr(found, name)).double() for name in expected if name != "first"}
    numbers["first"] = torch.tensor(found.attention_to[:, 0])
    for name, value in expected.items():
        # Maps are float32, and the two ways to them round some products differently.
        torch.testing.assert_close(numbers[name], value, rtol=2e-4, atol=2e-6, msg=f"{site.site} {name}")


def layers(maps: tuple[Tensor, ...], sites: list[Any]) -> Iterator[tuple[Any, Tensor]]:
    assert len(maps) == len(sites)
    yield from zip(sites, maps, strict=True)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "whisper"])
def test_sums_are_those_of_eager_maps(name: str, implementation: str) -> None:
    family = FAMILIES[name]
    result, output = captured(family, implementation)
    torch.manual_seed(7)
    inputs = family.inputs()
    length = output.attentions[0].shape[2]
    keep = torch.ones(len(output.attentions[0]), length, dtype=torch.bool)
    if name == "wav2vec2":
        keep = made(family, "eager")._get_feature_vector_attention_mask(length, inputs["attention_mask"]).bool()
    elif "attention_mask" in inputs:
        keep = inputs["attention_mask"].bool()
    assert (~keep).any() or name == "vit"
    window = 4 if "window" in name else None
    for site, attention in layers(output.attentions, list(result.sites)):
        assert site.kind == "self"
        assert site.changes == ()
        assert_equal(site, attention, keep, keep, causal=family.causal, window=window)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_whisper_has_three_attentions_and_each_equals_its_maps(implementation: str) -> None:
    result, output = captured(FAMILIES["whisper"], implementation)
    every = {
        "encoder.layers.{}.self_attn": (output.encoder_attentions, "self", False),
        "decoder.layers.{}.self_attn": (output.decoder_attentions, "self", True),
        "decoder.layers.{}.encoder_attn": (output.cross_attentions, "cross", False),
    }
    assert len(result.sites) == 6
    for path, (maps, kind, causal) in every.items():
        for layer, attention in enumerate(maps):
            site = result[path.format(layer)]
            assert site.kind == kind
            keep, keys = (torch.ones(2, size, dtype=torch.bool) for size in attention.shape[2:])
            assert_equal(site, attention, keep, keys, causal=causal, window=None)
            assert site.attended.queries.n == keep.numel()
            assert site.attended.keys.n == keys.numel()


def test_canine_computes_its_scores_by_itself() -> None:
    torch.manual_seed(7)
    config = transformers.CanineConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        num_hash_buckets=64,
        initializer_range=0.4,
        attn_implementation="eager",
    )
    model = transformers.AutoModel.from_config(config).eval()
    given = {"input_ids": torch.randint(4, 99, (2, 32)), "attention_mask": torch.ones(2, 32, dtype=torch.long)}
    given["attention_mask"][0, 16:] = 0
    with torch.no_grad(), probe_attention(model) as probe:
        output = model(**given, output_attentions=True)
    sites = probe.results().sites
    # Characters, molecules of four, characters: maps of each call in the order of the flow.
    for site, attention in layers(output.attentions, list(sites)):
        keep = given["attention_mask"].bool()
        keep = keep if attention.shape[2] == 32 else keep[:, ::4]
        assert_equal(site, attention, keep, keep, causal=False, window=None)


class OwnAttention(nn.Module):
    """Attention as people write it: one projection for all, heads of keys shared by heads of queries."""

    def __init__(self, way: str, *, heads: int = 4, groups: int = 2) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, (heads + 2 * groups) * 8)
        self.out = nn.Linear(32, 32)
        self.way, self.heads, self.groups = way, heads, groups

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (-1, 8)).transpose(1, 2).split((self.heads, self.groups, self.groups), 1)
        if self.way == "product":
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            k, v = (y.repeat_interleave(self.heads // self.groups, 1) for y in (k, v))
            scores = (q @ k.mT) / math.sqrt(8)
            later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            if self.way == "scores capped in place":
                scores.clamp_(-1, 1)
            mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


def maps_of(attention: OwnAttention, x: Tensor) -> Tensor:
    q, k, _ = attention.qkv(x).unflatten(-1, (-1, 8)).transpose(1, 2).split((4, 2, 2), 1)
    scores = q @ k.repeat_interleave(2, 1).mT / math.sqrt(8)
    return scores.masked_fill(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1), -math.inf).softmax(-1)


@pytest.mark.parametrize("way", ["product", "scores"])
def test_a_module_that_is_nobodys_model(way: str) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(32, 32), OwnAttention(way))
    x = 3 * torch.randn(2, 9, 32)
    with torch.no_grad(), probe_attention(model) as probe:
        model(x)
        attention = maps_of(model[1], model[0](x))
    (site,) = probe.results().sites
    assert (site.site, site.heads, site.key_heads, site.attended.position) == ("1", 4, 2, "no rotation")
    keep = torch.ones(2, 9, dtype=torch.bool)
    assert_equal(site, attention, keep, keep, causal=True, window=None)


def test_scores_that_are_changed_in_a_way_that_is_not_known_are_not_seen() -> None:
    model = nn.Sequential(nn.Linear(32, 32), OwnAttention("scores capped in place"))
    with torch.no_grad(), probe_attention(model) as probe:
        model(torch.randn(2, 9, 32))
    with pytest.raises(ValueError, match="Sequential made no attention that can be seen"):
        probe.results()


@pytest.mark.parametrize("causal", [False, True])
def test_torchs_own_transformer(causal: bool) -> None:
    torch.manual_seed(2)
    layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x, keep = 4 * torch.randn(3, 9, 32), torch.ones(3, 9, dtype=torch.bool)
    keep[0, 6:] = False
    later = nn.Transformer.generate_square_subsequent_mask(9) if causal else None
    padding = torch.zeros(3, 9).masked_fill(~keep, -math.inf)
    with torch.no_grad(), probe_attention(model) as probe:
        probe.mask(keep)
        model(x, mask=later, src_key_padding_mask=padding)
        first = model.layers[0].self_attn
        options = {"attn_mask": later, "key_padding_mask": padding, "average_attn_weights": False}
        maps = first(x, x, x, **options)[1]
    result = probe.results()
    assert [site.site for site in result.sites] == ["layers.0.self_attn", "layers.1.self_attn"]
    assert_equal(result.sites[0], maps, keep, keep, causal=causal, window=None)


def flash_like(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
    """What flash attention is given: no mask of queries × keys, but which keys are no padding, or None for all."""
    assert mask is None or mask.shape == (query.shape[0], key.shape[2])
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()[None, None]
    seen = seen if mask is None else seen & mask[:, None, None].bool()
    mixed = nn.functional.scaled_dot_product_attention(query, key, value, seen, scale=options["scaling"])
    return mixed.transpose(1, 2), None


@pytest.mark.parametrize("padded", [True, False])
def test_masks_of_keys_alone_as_flash_attention_takes_them(padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    masks = AttentionMaskInterface._global_mapping
    monkeypatch.setitem(AttentionInterface._global_mapping, "keys_alone", flash_like)
    monkeypatch.setitem(masks, "keys_alone", masks["flash_attention_2"])
    torch.manual_seed(7)
    family, inputs = FAMILIES["llama"], ids()
    if not padded:
        inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    model = made(family, "keys_alone")
    with torch.no_grad(), probe_attention(model) as probe:
        model(**inputs)
        maps = made(family, "eager")(**inputs, output_attentions=True).attentions
    keep = inputs["attention_mask"].bool()
    for site, attention in layers(maps, list(probe.results().sites)):
        assert_equal(site, attention, keep, keep, causal=True, window=None)
