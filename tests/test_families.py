"""Hooks see what ``output_hidden_states`` gives, in every family and in both major versions of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import tiny_senses
import torch
import transformers
from torch import Tensor, nn

from fastaniso.models import Anatomy, find_stacks, tapped
from fastaniso.models.inputs import forward_arguments, takes

IDS = torch.randint(4, tiny.VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(1))
GENERATOR = torch.Generator().manual_seed(2)
WAVES = torch.randn(2, 1200, generator=GENERATOR)
PIXELS = torch.randn(2, 3, 32, 32, generator=GENERATOR)
MELS = torch.randn(2, 16, 100, generator=GENERATOR)

TEXT: dict[str, Any] = {
    "roberta": lambda: transformers.RobertaConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        pad_token_id=0,
        max_position_embeddings=40,
    ),
    "byt5": lambda: transformers.T5Config(
        vocab_size=tiny.VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_heads=4,
        num_layers=3,
        num_decoder_layers=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    ),
} | {name: tiny.CONFIGS[name] for name in ("bert", "gpt2", "gpt_neox", "llama")}


def made(config: Any) -> nn.Module:
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(config).eval()


def inputs(model: nn.Module) -> dict[str, Tensor]:
    if takes(model, "input_features"):
        return {"input_features": MELS, "decoder_input_ids": IDS}
    if takes(model, "input_values"):
        return {"input_values": WAVES}
    if takes(model, "pixel_values"):
        return {"pixel_values": PIXELS}
    return forward_arguments(model, IDS, torch.ones_like(IDS))


def seen(model: nn.Module) -> tuple[dict[str, Tensor], Any, Anatomy]:
    """The state at every site and the model's own output, from one pass each."""
    arguments = inputs(model)
    one = {name: value[:1] if isinstance(value, Tensor) else value for name, value in arguments.items()}
    anatomy = find_stacks(model, lambda: model(**one))
    states: dict[str, Tensor] = {}
    with torch.no_grad(), tapped(model, anatomy.stacks, lambda site, state: states.update({site: state.clone()})):
        model(**arguments)
    with torch.no_grad():
        return states, model(**arguments, output_hidden_states=True), anatomy


def assert_same(states: dict[str, Tensor], prefix: str, hidden: tuple[Tensor, ...], last: Tensor) -> None:
    """Every entry but the last is a block's; the last is before or after the final norm, by version and family."""

    def equal(site: str, expected: Tensor) -> None:
        torch.testing.assert_close(states[prefix + site], expected, rtol=0, atol=0, msg=lambda m: f"{site}: {m}")

    depth = len(hidden) - 1
    equal("embedding", hidden[0])
    for layer, expected in enumerate(hidden[1:-1]):
        equal(f"block.{layer}", expected)
    ends = [name for name in (f"block.{depth - 1}", "post_final_norm") if prefix + name in states]
    assert any(torch.equal(states[prefix + end], hidden[-1]) for end in ends)
    equal(ends[-1], last)
    assert f"{prefix}block.{depth}" not in states


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "gpt_neox", "llama"])
def test_text(family: str) -> None:
    states, output, _ = seen(made(TEXT[family]()))
    assert_same(states, "", output.hidden_states, output.last_hidden_state)


def test_bytes_in_both_stacks() -> None:
    states, output, _ = seen(made(TEXT["byt5"]()))
    assert_same(states, "encoder.", output.encoder_hidden_states, output.encoder_last_hidden_state)
    assert_same(states, "decoder.", output.decoder_hidden_states, output.last_hidden_state)


def test_bytes_in_the_encoder_alone() -> None:
    torch.manual_seed(0)
    states, output, _ = seen(transformers.T5EncoderModel(TEXT["byt5"]()).eval())
    assert_same(states, "", output.hidden_states, output.last_hidden_state)


def test_characters_in_three_stacks() -> None:
    """CANINE: characters, a quarter as many molecules, characters again."""
    config = transformers.CanineConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, num_hash_buckets=64
    )
    states, output, anatomy = seen(made(config))
    first, middle, last = anatomy.stacks
    assert [stack.shape[1] for stack in anatomy.stacks] == [12, 3, 12]
    sites = [
        *first.sites,
        *middle.sites,
        *last.sites,
    ]
    # transformers gives the characters' states, the molecules', and the characters' again.
    for site, expected in zip(sites, output.hidden_states, strict=True):
        torch.testing.assert_close(states[site], expected, rtol=0, atol=0, msg=lambda m, s=site: f"{s}: {m}")
    assert torch.equal(states[last.sites[-1]], output.last_hidden_state)


@pytest.mark.parametrize("family", sorted(set(tiny_senses.SOUNDS) - {"whisper"}))
def test_sounds(family: str) -> None:
    states, output, anatomy = seen(tiny_senses.model(family))
    assert_same(states, "", output.hidden_states, output.last_hidden_state)
    assert (anatomy.stacks[0].final_norm is not None) == ("stable" in family)


def test_whisper_in_both_stacks() -> None:
    states, output, _ = seen(tiny_senses.model("whisper"))
    assert_same(states, "encoder.", output.encoder_hidden_states, output.encoder_last_hidden_state)
    assert_same(states, "decoder.", output.decoder_hidden_states, output.last_hidden_state)


@pytest.mark.parametrize("family", sorted(tiny_senses.IMAGES))
def test_images(family: str) -> None:
    states, output, _ = seen(tiny_senses.model(family))
    assert_same(states, "", output.hidden_states, output.last_hidden_state)


@pytest.mark.parametrize("family", sorted(tiny_senses.CONVOLUTIONAL))
def test_feature_maps(family: str) -> None:
    states, output, anatomy = seen(tiny_senses.model(family))
    (stack,) = anatomy.stacks
    assert stack.maps
    assert stack.sites == ("embedding", "block.0", "block.1", "block.2")
    for site, expected in zip(stack.sites, output.hidden_states, strict=True):
        torch.testing.assert_close(states[site], expected, rtol=0, atol=0)
