"""Blocks are found by structure, hooks see what ``output_hidden_states`` gives, and nothing of them stays behind."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from fastaniso.models import Anatomy, ModelNotFoundError, find_stacks, forward_arguments, load_model, tapped


def anatomy_of(model: nn.Module, ids: Tensor) -> Anatomy:
    one = ids[:1]
    return find_stacks(model, lambda: model(**forward_arguments(model, one, torch.ones_like(one))))


def seen(model: nn.Module, ids: Tensor, **options: Any) -> tuple[dict[str, Tensor], Any, Anatomy]:
    """The state at every site and the model's own output."""
    anatomy = anatomy_of(model, ids)
    states: dict[str, Tensor] = {}
    with torch.no_grad(), tapped(model, anatomy.stacks, lambda site, state: states.update({site: state.clone()})):
        output = model(**forward_arguments(model, ids, torch.ones_like(ids)), **options)
    return states, output, anatomy


IDS = torch.randint(4, tiny.VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))


def assert_same(states: dict[str, Tensor], prefix: str, hidden: tuple[Tensor, ...], last: Tensor) -> None:
    """``hidden_states`` of transformers, whose last entry is after the final norm where there is one."""
    torch.testing.assert_close(states[f"{prefix}embedding"], hidden[0], rtol=0, atol=0)
    for layer, expected in enumerate(hidden[1:-1]):
        torch.testing.assert_close(states[f"{prefix}block.{layer}"], expected, rtol=0, atol=0)
    end = f"{prefix}post_final_norm"
    end = end if end in states else f"{prefix}block.{len(hidden) - 2}"
    torch.testing.assert_close(states[end], last, rtol=0, atol=0)


@pytest.mark.parametrize(
    "family", ["bert", "gpt2", "gpt_neox", "llama", "albert", "albert_two_groups", "opt", "mixtral"]
)
def test_hooks_equal_output_hidden_states(family: str) -> None:
    states, output, anatomy = seen(tiny.model(family), IDS, output_hidden_states=True)
    assert_same(states, "", output.hidden_states, output.last_hidden_state)
    assert set(states) == set(anatomy.sites) - set(anatomy.same_as)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_hooks_equal_output_hidden_states_of_both_stacks(family: str) -> None:
    states, output, anatomy = seen(tiny.model(family), IDS, output_hidden_states=True)
    assert [(stack.prefix, stack.depth) for stack in anatomy.stacks] == [("encoder.", 3), ("decoder.", 2)]
    assert_same(states, "encoder.", output.encoder_hidden_states, output.encoder_last_hidden_state)
    assert_same(states, "decoder.", output.decoder_hidden_states, output.last_hidden_state)


@pytest.mark.parametrize(
    ("family", "norm"),
    [
        ("bert", False),
        ("albert", False),
        ("bart", False),
        ("gpt2", True),
        ("gpt_neox", True),
        ("llama", True),
        ("t5", True),
    ],
)
def test_final_norm_is_found_where_there_is_one(family: str, norm: bool) -> None:
    model = tiny.model(family)
    for stack in anatomy_of(model, IDS).stacks:
        assert (stack.final_norm is not None) == norm
        assert (f"{stack.prefix}post_final_norm" in stack.sites) == norm


def test_state_before_the_final_norm_is_the_last_block() -> None:
    model = tiny.model("llama")
    states, output, anatomy = seen(model, IDS)
    assert anatomy.same_as == {"pre_final_norm": "block.2"}
    torch.testing.assert_close(model.norm(states["block.2"]), output.last_hidden_state, rtol=0, atol=0)


def test_shared_blocks_are_told_apart_by_their_calls() -> None:
    model = tiny.model("albert")
    (stack,) = anatomy_of(model, IDS).stacks
    assert (len(stack.blocks), stack.depth) == (1, 4)


@pytest.mark.parametrize("wrapper", ["AutoModelForCausalLM", "AutoModelForMaskedLM"])
def test_models_with_a_head(wrapper: str) -> None:
    import transformers

    config = tiny.CONFIGS["llama" if wrapper == "AutoModelForCausalLM" else "bert"]()
    model = getattr(transformers, wrapper).from_config(config).eval()
    states, output, _ = seen(model, IDS, output_hidden_states=True)
    assert_same(states, "", output.hidden_states, output.hidden_states[-1])


class Block(nn.Module):
    """Adds a constant; gives a tensor as in transformers 5, or a tuple as in transformers 4."""

    def __init__(self, *, as_tuple: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.as_tuple = as_tuple

    def forward(self, hidden_states: Tensor) -> Tensor | tuple[Tensor, None]:
        hidden_states = hidden_states + self.linear(hidden_states)
        return (hidden_states, None) if self.as_tuple else hidden_states


class Toy(nn.Module):
    def __init__(self, *, as_tuple: bool = False, by_keyword: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(tiny.VOCABULARY, 8)
        self.stages = nn.ModuleList(Block(as_tuple=as_tuple) for _ in range(3))
        self.heads = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.ln = nn.LayerNorm(8)
        self.by_keyword = by_keyword

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        state = self.embed(input_ids)
        for stage in self.stages:
            output = stage(hidden_states=state) if self.by_keyword else stage(state)
            state = output[0] if isinstance(output, tuple) else output
        state = self.ln(state)
        for head in self.heads:
            state = head(state)
        return state


@pytest.mark.parametrize("as_tuple", [True, False], ids=["transformers4_tuple", "transformers5_tensor"])
@pytest.mark.parametrize("by_keyword", [True, False], ids=["keyword", "positional"])
def test_both_call_styles(as_tuple: bool, by_keyword: bool) -> None:
    model = Toy(as_tuple=as_tuple, by_keyword=by_keyword)
    states, _, anatomy = seen(model, IDS)
    assert anatomy.sites == ("embedding", "block.0", "block.1", "block.2", "pre_final_norm", "post_final_norm")
    state = states["embedding"]
    for layer, stage in enumerate(model.stages):
        state = state + stage.linear(state)
        torch.testing.assert_close(states[f"block.{layer}"], state)
    torch.testing.assert_close(states["post_final_norm"], model.ln(state))


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_hooks_are_gone_after_use_and_after_an_exception() -> None:
    model = tiny.model("gpt2")
    before = hooks(model)
    anatomy = anatomy_of(model, IDS)
    assert hooks(model) == before

    def fail(site: str, state: Tensor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), tapped(model, anatomy.stacks, fail):
        model(IDS)
    assert hooks(model) == before

    with pytest.raises(RuntimeError, match="boom"):
        find_stacks(model, lambda: (_ for _ in ()).throw(RuntimeError("boom")))
    assert hooks(model) == before


def test_no_list_of_all_layers_stays_alive() -> None:
    """While block i is read, the states of the blocks before the one it read from are gone."""
    import transformers

    config = tiny.CONFIGS["llama"]()
    config.num_hidden_layers = 8
    config.layer_types = None
    model = transformers.AutoModel.from_config(config).eval()
    anatomy = anatomy_of(model, IDS)
    references: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def watch(site: str, state: Tensor) -> None:
        gc.collect()
        alive.append(sum(reference() is not None for reference in references))
        references.append(weakref.ref(state))

    with torch.no_grad(), tapped(model, anatomy.stacks, watch):
        model(**forward_arguments(model, IDS, torch.ones_like(IDS)))
    assert len(alive) == 10  # embedding, eight blocks, the final norm's output
    # The model's own forward holds the embedding and what the block read; nothing else lives, at any depth.
    assert max(alive) <= 2


def test_a_model_without_blocks_is_refused_with_the_reason() -> None:
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 8))
    with pytest.raises(ValueError, match=r"no stack of blocks in Sequential: expected a ModuleList"):
        find_stacks(model, lambda: model(IDS[:1] % 9))


@pytest.mark.parametrize("name", ["./no/such/folder", "no such model", "a/b/c"])
def test_a_name_that_can_be_no_model_is_told_without_asking_the_hub(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no folder"):
        load_model(name)


def test_unknown_dtype_names_the_choices() -> None:
    with pytest.raises(ValueError, match="dtype: expected one of auto, float32"):
        load_model("whatever", dtype="int8")
