"""A probe sees what the model itself says passed, counts what the masks say, and leaves nothing behind."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiny
import torch
import transformers
from nets import TOKENS, Block, Net, hooks_of, net
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import fastaniso
from fastaniso.probing import Probe

IDS = torch.randint(4, tiny.VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(1))
LENGTHS = torch.tensor([9, 4, 6])
MASK = (torch.arange(9) < LENGTHS[:, None]).long()


def passed(model: Net, ids: Tensor) -> dict[str, Tensor]:
    """The states at the automatic sites, by hand."""
    states = {"embedding": model.embed(ids)}
    for i, block in enumerate(model.trunk):
        states[f"block.{i}"] = block(list(states.values())[-1])
    return {name: state.detach() for name, state in states.items()}


GATE = 2
"""What counts the calls of the model: a hook, and the mark that it takes keywords."""


def assert_saw(probe: Probe, states: dict[str, Tensor], keep: Tensor | None = None) -> None:
    results = probe.results()
    assert list(results) == list(states)
    for site, state in states.items():
        expected = fastaniso.describe(state.detach(), mask=keep, metrics=None)
        assert results[site].n == expected.n
        # Unit rows are float32 and summed in other pieces.
        assert results[site].mean_cosine == pytest.approx(expected.mean_cosine, abs=1e-6)
        assert results[site].drift.norm_of_mean == pytest.approx(expected.drift.norm_of_mean, rel=1e-6)


@pytest.mark.parametrize(
    "family", ["bert", "gpt2", "gpt_neox", "llama", "albert", "albert_two_groups", "opt", "mixtral"]
)
def test_blocks_are_found_without_a_pass_and_masks_taken_from_the_model(family: str) -> None:
    model = tiny.model(family)
    with torch.no_grad():
        model(input_ids=IDS, output_hidden_states=True)  # transformers has hooks of its own from here on
        before = hooks_of(model)
        with fastaniso.probe(model) as probe:
            output = model(input_ids=IDS, attention_mask=MASK, output_hidden_states=True)
    hidden = output.hidden_states
    # The last entry of hidden_states may be after a final norm, which is no block.
    states = {"embedding": hidden[0], **{f"block.{i}": state for i, state in enumerate(hidden[1:-1])}}
    results = probe.results()
    assert list(results) == [*states, f"block.{len(hidden) - 2}"]
    assert set(results.masks.values()) == {("attention_mask",)}
    for site, state in states.items():
        assert results[site].n == int(LENGTHS.sum())
        assert results[site].mean_cosine == pytest.approx(fastaniso.mean_cosine(state, mask=MASK.bool()), abs=1e-12)
    assert hooks_of(model) == before


def test_both_stacks_have_masks_of_their_own() -> None:
    model = tiny.model("t5")
    with fastaniso.probe(model) as probe, torch.no_grad():
        output = model(
            input_ids=IDS,
            attention_mask=MASK,
            decoder_input_ids=IDS[:, :5],
            decoder_attention_mask=MASK[:, :5],
            output_hidden_states=True,
        )
    results = probe.results()
    assert list(results) == [
        *("encoder.embedding", "encoder.block.0", "encoder.block.1", "encoder.block.2"),
        *("decoder.embedding", "decoder.block.0", "decoder.block.1"),
    ]
    assert results["encoder.block.1"].n == int(MASK.sum())
    assert results["decoder.block.0"].n == int(MASK[:, :5].sum())
    expected = fastaniso.mean_cosine(output.decoder_hidden_states[1], mask=MASK[:, :5].bool())
    assert results["decoder.block.0"].mean_cosine == pytest.approx(expected, abs=1e-12)
    assert results.masks["decoder.block.0"] == ("decoder_attention_mask",)
    with fastaniso.probe(model) as probe, torch.no_grad():
        model(input_ids=IDS, attention_mask=MASK, decoder_input_ids=IDS)
    assert probe.results().masks["decoder.block.0"] == ("no mask",)
    assert probe.results()["decoder.block.0"].n == IDS.numel()
    # generate() calls the encoder by itself, which then is the outermost that is given a mask.
    with fastaniso.probe(model) as probe, torch.no_grad():
        model.get_encoder()(input_ids=IDS, attention_mask=MASK)
    assert probe.results()["encoder.block.0"].n == int(MASK.sum())


def test_any_module_over_many_batches() -> None:
    model = net()
    probe = fastaniso.probe(model, gram=True, metrics=["rankme"])
    batches = [TOKENS, TOKENS[:1] + 3, TOKENS[:, :2]]
    with probe:
        for ids in batches:
            model(ids)
    states = [passed(model, ids) for ids in batches]
    rows = {site: torch.cat([state[site].flatten(0, 1) for state in states]) for site in states[0]}
    assert_saw(probe, rows)
    expected = fastaniso.describe(rows["block.2"], metrics=["rankme"])
    assert probe.results()["block.2"].metrics["rankme"] == pytest.approx(expected.metrics["rankme"], rel=1e-6)
    assert probe.results()["block.2"].cosine_std == pytest.approx(fastaniso.cosine_std(rows["block.2"]), rel=1e-5)
    assert {site: state.kept.item() for site, state in probe.states.items()} == dict.fromkeys(rows, 20 + 4 - 2)


def test_forgetting_and_going_on() -> None:
    model = net()
    probe = fastaniso.probe(model)
    with probe:
        model(TOKENS)
        probe.reset()
        model(TOKENS[:1])
    with probe:
        model(TOKENS[:1])
    assert probe.results()["block.0"].n == 12
    probe.start()
    assert probe.active
    with pytest.raises(RuntimeError, match="on already"):
        probe.start()
    probe.stop().stop()
    assert hooks_of(model) == 0
    with pytest.raises(ValueError, match="nothing measured yet"):
        probe.reset().results()


SITES: list[tuple[Any, list[str]]] = [
    ("trunk.*", ["trunk.0", "trunk.1", "trunk.2"]),
    ("**.norm", ["trunk.0.norm", "trunk.1.norm", "trunk.2.norm"]),
    ("trunk.[02]", ["trunk.0", "trunk.2"]),
    (["head", "trunk.1", "trunk.1.*"], ["trunk.1", "trunk.1.norm", "trunk.1.linear", "head"]),
    (nn.LayerNorm, ["trunk.0.norm", "trunk.1.norm", "trunk.2.norm"]),
    ([nn.Embedding, Block], ["embed", "trunk.0", "trunk.1", "trunk.2"]),
    ({"first": "trunk.0", "last": "trunk.2"}, ["first", "last"]),
]


@pytest.mark.parametrize(("sites", "names"), SITES, ids=str)
def test_sites_by_pattern_class_and_label(sites: Any, names: list[str]) -> None:
    model = net()
    with fastaniso.probe(model, sites) as probe:
        model(TOKENS)
    assert list(probe.sites) == names
    assert set(probe.results()) == set(names)


def test_sites_by_module() -> None:
    model = net()
    assert fastaniso.probe(model, model.trunk).sites == ("trunk.0", "trunk.1", "trunk.2")
    assert fastaniso.probe(model, [model.head, model.embed]).sites == ("embed", "head")
    with fastaniso.probe(model, model) as probe:
        expected = model(TOKENS)
    assert probe.results()["Net"].mean_cosine == pytest.approx(fastaniso.mean_cosine(expected.detach()), abs=1e-12)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ("trunc.0", r"no module is called 'trunc.0'; the nearest names are trunk.0"),
        ("*norm*", r"no module is called '\*norm\*'; .* \*\* for any"),
        ("trunk", r"'trunk' is a ModuleList, which is never called .* its members are 'trunk.\*'"),
        (nn.Conv2d, r"no module is a Conv2d; there are Block, Embedding"),
        (nn.Linear(2, 2), r"the Linear given is no part of the model"),
        ([], "at least one pattern, class or module"),
        ({"norm": "**.norm"}, r"'norm' would stand for 3 modules \(trunk.0.norm, "),
        ({"a": "head", "b": "head"}, r"'a' and 'b' are one module, 'head'"),
    ],
)
def test_sites_that_mean_nothing(sites: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fastaniso.probe(net(), sites)


def test_two_names_of_one_module_collide() -> None:
    model = net()
    model.again = model.head
    with pytest.raises(ValueError, match="'head' and 'again' are one module by two names"):
        fastaniso.probe(model, ["head", "again"])
    # By class it has its first name, and is one site.
    assert fastaniso.probe(model, nn.Linear).sites[-1] == "head"
    assert fastaniso.probe(model, "again").sites == ("again",)
    with pytest.raises(TypeError, match=r"a class of modules, .* got 3"):
        fastaniso.probe(model, [3])
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got dict"):
        fastaniso.probe({})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript is
def test_script_takes_no_hooks() -> None:
    model = net()
    model.trunk[1] = torch.jit.script(model.trunk[1])
    with pytest.raises(ValueError, match=r"'trunk\.1' is TorchScript, which takes no hooks; probe the model"):
        fastaniso.probe(model)
    assert fastaniso.probe(model, "trunk.[02]").sites == ("trunk.0", "trunk.2")
    with pytest.raises(ValueError, match="no list of repeated blocks"):
        fastaniso.probe(torch.jit.trace(net(), TOKENS))


def test_a_model_without_blocks_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="found no list of repeated blocks in the model; name the modules"):
        fastaniso.probe(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": "middle"}, "channels: expected None, 'first' or 'last'"),
        ({"mask": "mine"}, r"mask: expected 'model' or None, .* probe.mask\(keep\)"),
        ({"every": 0}, "every: expected a positive int"),
        ({"backend": "gpu"}, "backend: expected one of"),
        ({"invalid": "skip"}, "invalid: expected 'raise' or 'omit'"),
        ({"metrics": ["uniformity"]}, "'uniformity' needs pairs, which a probe does not have"),
    ],
)
def test_wrong_options_are_refused_at_once(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fastaniso.probe(net(), **wrong)


def test_nothing_stays_behind() -> None:
    model = net()
    before, outputs = copy.deepcopy(model.state_dict()), model(TOKENS)
    with fastaniso.probe(model, every=2):
        watched = model(TOKENS), model(TOKENS)
    assert hooks_of(model) == 0
    assert all(torch.equal(outputs, w) for w in (*watched, model(TOKENS)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(model.state_dict()) == list(before)


@pytest.mark.parametrize("every", [1, 2])
def test_nothing_stays_behind_after_an_exception(every: int) -> None:
    model = net()
    with pytest.raises(IndexError), fastaniso.probe(model, every=every) as probe:  # noqa: PT012
        model(TOKENS)
        model(TOKENS)
        model(TOKENS + 99)
    assert hooks_of(model) == 0
    assert probe.results()["embedding"].n == 12 * (2 if every == 1 else 1)
    probe = fastaniso.probe(model, every=every).start()
    with pytest.raises(IndexError):
        model(TOKENS + 99)
    # Started by hand and not stopped: with every=2 the sites have no hook between measured passes.
    assert hooks_of(model) == GATE if every == 2 else hooks_of(model) > GATE
    model(TOKENS)
    model(TOKENS)
    probe.stop()
    assert hooks_of(model) == 0
    assert probe.results()["embedding"].n == 12 * (2 if every == 1 else 1)


def test_every_so_many_calls() -> None:
    model = net()
    with fastaniso.probe(model, every=3) as probe:
        for size in (1, 2, 3, 4, 5, 6, 1):
            model(TOKENS[:1, :size])
            assert hooks_of(model) == GATE
    assert probe.results()["block.1"].n == 1 + 4 + 1


class Recurrent(nn.Module):
    def __init__(self, output: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.output = output

    def forward(self, x: Tensor) -> Any:
        return self.output(self.layer(x))


OUTPUTS: list[tuple[str, Callable[[Tensor], Any], bool]] = [
    ("tuple", lambda x: (x, None), True),
    ("dict", lambda x: {"loss": x.sum(), "last_hidden_state": x}, True),
    ("scalar", lambda x: x.sum(), False),
    ("integers", lambda x: x.long(), False),
    ("other dict", lambda x: {"logits": x}, False),
    ("nothing", lambda x: None, False),
]


@pytest.mark.parametrize(("output", "fine"), [o[1:] for o in OUTPUTS], ids=[o[0] for o in OUTPUTS])
def test_outputs_that_are_and_are_not_hidden_states(output: Callable[[Tensor], Any], fine: bool) -> None:
    model, x = nn.Sequential(Recurrent(output)), torch.randn(2, 3, 4)
    with fastaniso.probe(model, "0") as probe:
        if fine:
            model(x)
            assert probe.results()["0"].n == 6
        else:
            with pytest.raises(ValueError, match=r"site '0': expected a hidden state \[..., d\] of floats, .* select="):
                model(x)
            assert hooks_of(model) == 0
    select = {"logits": lambda out: out["logits"]}["logits"]
    model = nn.Sequential(Recurrent(lambda x: {"logits": x}))
    with fastaniso.probe(model, "0", select=select) as probe:
        model(x)
    assert probe.results()["0"].n == 6


def test_maps_need_a_word_for_their_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    images = torch.randn(2, 3, 5, 6)
    with (
        fastaniso.probe(model, "0") as probe,
        pytest.raises(ValueError, match=r"pass channels='first' for \(B, C, H, W\)"),
    ):
        model(images)
    keep = torch.rand(2, 3, 4) > 0.4
    for x in (images, images.to(memory_format=torch.channels_last)):
        with fastaniso.probe(model, "0", channels="first") as probe:
            probe.mask(keep)
            maps = model[0](x)
            model(x)
        rows = maps.detach().permute(0, 2, 3, 1).contiguous()
        # Only the pass of the model forgets the mask: the first layer by itself was measured with it, too.
        assert probe.results()["0"].n == 2 * int(keep.sum())
        assert probe.results()["0"].drift.unit == pytest.approx(fastaniso.drift(rows, mask=keep).unit, rel=1e-9)
    with fastaniso.probe(nn.Sequential(nn.Identity()), "0", channels="last") as probe:
        probe._selection.root.outer(images)
    assert (probe.results()["0"].dim, probe.results()["0"].n) == (6, 30)


def test_blocks_of_a_convolutional_network_are_found_when_asked_for() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv(x)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(Residual(), Residual()))
    with pytest.raises(ValueError, match="for convolutional maps pass channels='first'"):
        fastaniso.probe(model)
    with pytest.raises(ValueError, match="found no list of repeated blocks"):
        fastaniso.probe(nn.Sequential(nn.Sequential(*(nn.Sequential(Residual()) for _ in range(2)))))
    with fastaniso.probe(model, channels="first") as probe:
        model(torch.randn(2, 3, 4, 5))
    assert {site: d.n for site, d in probe.results().items()} == {"embedding": 40, "block.0": 40, "block.1": 40}


def test_masks_of_a_batch_are_for_one_pass() -> None:
    model, keep = net(), torch.rand(2, 6, generator=torch.Generator().manual_seed(0)) > 0.5
    with fastaniso.probe(model) as probe:
        probe.mask(keep)
        model(TOKENS)
    assert_saw(probe, passed(model, TOKENS), keep)
    with probe:
        model(TOKENS)
    assert probe.results()["block.0"].n == 12 + int(keep.sum())
    assert probe.results().masks["block.0"] == ("no mask", "probe.mask")
    with fastaniso.probe(model) as probe:
        probe.mask(keep, sites="block.[12]")
        model(TOKENS)
    assert {site: d.n for site, d in probe.results().items()} == {
        "embedding": 12,
        "block.0": 12,
        "block.1": int(keep.sum()),
        "block.2": int(keep.sum()),
    }


def test_masks_that_do_not_fit() -> None:
    model = tiny.model("bert")
    probe = fastaniso.probe(model)
    with pytest.raises(TypeError, match=r"keep: expected a bool tensor .* got int64; pass keep.bool\(\)"):
        probe.mask(MASK)
    with pytest.raises(ValueError, match=r"no site is called 'layer.\*'; there are embedding, block.0"):
        probe.mask(MASK.bool(), sites="layer.*")
    probe.start().mask(MASK[:, :2].bool())
    with pytest.raises(
        ValueError, match=r"site 'embedding': mask: what probe.mask was given, of shape \(3, 2\), does not fit"
    ):
        model(IDS)
    square = MASK[:, None, None, :].expand(3, 1, 9, 9).bool()
    with (
        probe,
        pytest.raises(ValueError, match=r"of BertModel, of shape \(3, 1, 9, 9\), does not fit .* mask=None"),
    ):
        model(IDS, attention_mask=square)
    with (
        probe,
        pytest.raises(ValueError, match=r"of BertModel is no mask \[sequences, positions\], but of shape"),
    ):
        model(IDS, attention_mask=torch.where(square, 0.0, -1e9))
    assert hooks_of(model) == 0
    with fastaniso.probe(model, mask=None) as probe:
        model(IDS, attention_mask=MASK)
    assert probe.results()["block.0"].n == IDS.numel()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_masks_of_pooled_states_and_of_a_cache() -> None:
    model = tiny.model("bert")
    with fastaniso.probe(model, ["pooler", "encoder.layer.0"]) as probe:
        model(IDS, MASK)
    assert {site: d.n for site, d in probe.results().items()} == {"encoder.layer.0": int(MASK.sum()), "pooler": 3}
    assert probe.results().masks["pooler"] == ("no mask",)
    model = tiny.model("llama")
    with fastaniso.probe(model) as probe, torch.no_grad():
        first = model(IDS[:, :8], attention_mask=MASK[:, :8], use_cache=True)
        model(IDS[:, 8:], attention_mask=MASK, **tiny.given_cache(model, tiny.cache_of(first)))
    assert probe.results()["block.0"].n == int(MASK.sum())
    nested = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    padding = torch.arange(5) > torch.tensor([[4], [2]])
    with fastaniso.probe(nested), torch.no_grad(), pytest.raises(ValueError, match="got a nested one; make the model"):
        nested(torch.randn(2, 5, 8), src_key_padding_mask=padding)


def test_masks_of_frames_and_of_towers() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    speech = transformers.Wav2Vec2Config(
        **sizes, conv_dim=(16, 16), conv_stride=(4, 4), conv_kernel=(8, 8), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = transformers.AutoModelForCTC.from_config(speech).eval()
    samples = (torch.arange(800) < torch.tensor([[800], [401]])).long()
    with fastaniso.probe(model) as probe, torch.no_grad():
        model(torch.randn(2, 800), attention_mask=samples)
    frames = sum(((length - 8) // 4 + 1 - 8) // 4 + 1 for length in (800, 401))
    assert {site: d.n for site, d in probe.results().items()} == dict.fromkeys(probe.sites, frames)

    text = {**sizes, "vocab_size": 99, "max_position_embeddings": 17, "eos_token_id": 2, "pad_token_id": 0}
    images = {**sizes, "image_size": 32, "patch_size": 8}
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=images)).eval()
    ids = torch.full((2, 17), 5)  # as many tokens as patches: a mask that fits is not always meant
    with fastaniso.probe(model) as probe, torch.no_grad():
        model(ids, torch.randn(2, 3, 32, 32), attention_mask=(torch.arange(17) < 9).expand(2, 17).long())
    results = probe.results()
    assert (results["text_model.encoder.block.1"].n, results["vision_model.encoder.block.1"].n) == (18, 34)
    assert results.masks["vision_model.encoder.block.1"] == ("no mask",)


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_checkpointing_calls_again_is_not_counted_again(reentrant: bool) -> None:
    class Checkpointed(Net):
        def forward(self, ids: Tensor) -> Tensor:
            x = self.embed(ids)
            for block in self.trunk:
                x = checkpoint(block, x, use_reentrant=reentrant)
            return self.head(x)

    torch.manual_seed(0)
    model = Checkpointed()
    with fastaniso.probe(model) as probe:
        model(TOKENS).sum().backward()
    assert_saw(probe, passed(model, TOKENS))
    model = tiny.model("bert").train()
    # transformers 4 has the one, 5 the other.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    with fastaniso.probe(model) as probe:
        model(IDS, attention_mask=MASK).last_hidden_state.sum().backward()
    assert {d.n for d in probe.results().values()} == {int(MASK.sum())}


def test_a_block_that_is_left_out_leaves_a_gap_and_one_called_again_counts_on() -> None:
    class Odd(Net):
        def forward(self, ids: Tensor, order: list[int]) -> Tensor:
            x = self.embed(ids)
            for i in order:
                x = self.trunk[i](x)
            return x

    model = Odd()
    for order, names in (([0, 2], [0, 2]), ([0, 1, 2, 0, 1], [0, 1, 2, 3, 4]), ([1, 2], [1, 2])):
        with fastaniso.probe(model) as probe:
            model(TOKENS, order)
            model(TOKENS, order)
        assert list(probe.results()) == ["embedding", *(f"block.{i}" for i in names)]
        assert probe.results()["block.2"].n == 24
    assert probe.results().silent == ("block.0",)
    assert "never called: block.0" in str(probe.results())


def test_blocks_called_by_somebody_else() -> None:
    model = net()
    with fastaniso.probe(model) as probe:
        for _ in range(2):
            passed(model, TOKENS)
    assert {site: d.n for site, d in probe.results().items()} == dict.fromkeys(passed(model, TOKENS), 24)


def test_in_training_and_under_autocast() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    plain = copy.deepcopy(model)
    plain_optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    probe = fastaniso.probe(model, [*("trunk.0.linear", "trunk.2")], gram=True)
    for step in range(3):
        for network, stepper in ((model, optimizer), (plain, plain_optimizer)):
            with torch.autocast("cpu", torch.bfloat16, enabled=step > 0):
                if network is model:
                    with probe:
                        loss = network(TOKENS).float().square().mean()
                else:
                    loss = network(TOKENS).float().square().mean()
            stepper.zero_grad()
            loss.backward()
            stepper.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name
    assert probe.results()["trunk.0.linear"].provenance == ("bfloat16 rows, cpu kernel", "float32 rows, cpu kernel")
    assert not any(tensor.requires_grad for tensor in (state.sums for state in probe.states.values()))
    with fastaniso.probe(model.half()) as probe, torch.inference_mode():
        model(TOKENS)
        model(TOKENS)
    assert probe.results()["block.0"].n == 24


class NoWaiting(TorchDispatchMode):
    """Refuses what would wait for a device: values asked for on the host, and copies to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket is not torch.ops.aten._local_scalar_dense, "a value was asked for"
        assert not (func.overloadpacket is torch.ops.aten._to_copy and (kwargs or {}).get("device")), "a copy was made"
        assert func.overloadpacket not in (torch.ops.aten.nonzero, torch.ops.aten.masked_select), (
            "a shape was asked for"
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("gram", [False, True])
def test_no_update_waits_for_the_device(gram: bool) -> None:
    model = net()
    with fastaniso.probe(model, gram=gram) as probe, NoWaiting():
        for _ in range(3):
            probe.mask(torch.ones(2, 6, dtype=torch.bool))
            model(TOKENS)
    assert probe.results()["block.0"].n == 36
    with pytest.raises(AssertionError, match="a value was asked for"), NoWaiting():
        probe.states["block.0"].kept.item()
    # Fake tensors have no values: whatever asks for one raises.
    with FakeTensorMode():
        fake = Net()
        with fastaniso.probe(fake, gram=gram) as probe:
            for _ in range(2):
                probe.mask(torch.empty(2, 6, dtype=torch.bool))
                fake(torch.empty(2, 6, dtype=torch.int64))
    assert probe.states["block.2"].sums.shape == (4, 8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_passes_do_not_wait_and_results_agree(dtype: torch.dtype) -> None:
    model, ids, mask = tiny.model("bert").to("cuda", dtype), IDS.cuda(), MASK.cuda()
    probe = fastaniso.probe(model)
    with torch.no_grad():
        with probe:
            model(ids, attention_mask=mask)  # compiles its kernels
        probe.reset()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with probe:
                model(ids, attention_mask=mask)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        hidden = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    for site, state in zip(probe.results(), hidden, strict=True):
        expected = fastaniso.mean_cosine(state.cpu(), mask=MASK.bool(), backend="reference")
        assert probe.results()[site].mean_cosine == pytest.approx(expected, abs=1e-5)


@pytest.fixture
def clean_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def compiled(model: nn.Module, how: str) -> nn.Module:
    if how == "wrapped":
        return torch.compile(model, backend="eager")  # type: ignore[return-value]
    if how == "in place":
        model.compile(backend="eager")
        return model
    for block in model.trunk:
        block.compile(backend="eager")
    return model


@pytest.mark.usefixtures("clean_compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler looks at inputs' gradients
@pytest.mark.parametrize("before", [False, True], ids=["not called before", "called before"])
@pytest.mark.parametrize("how", ["wrapped", "in place", "blocks in place"])
def test_compiled_models(how: str, before: bool) -> None:
    model = net()
    expected, states = model(TOKENS), passed(model, TOKENS)
    fast = compiled(model, how)
    if before:
        fast(TOKENS)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with fastaniso.probe(fast) as probe:
        torch.testing.assert_close(fast(TOKENS), expected)
    assert_saw(probe, states)
    assert hooks_of(fast) == 0
    if before:
        torch.testing.assert_close(fast(TOKENS), expected)
    # Nothing was compiled with the hooks, and what was compiled before goes on.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    assert graphs > 0 if before else graphs == 0
    if how != "in place":
        with fastaniso.probe(fast, every=2) as probe:
            for _ in range(3):
                fast(TOKENS)
        assert probe.results()["block.1"].n == 24
    else:
        with pytest.raises(ValueError, match="every: hooks of a model that was compiled in place"):
            fastaniso.probe(fast, every=2).start()
    assert hooks_of(fast) == 0


@pytest.mark.usefixtures("clean_compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler looks at inputs' gradients
def test_a_model_compiled_from_outside_has_to_be_told() -> None:
    model = net()
    step = torch.compile(lambda ids: model(ids), backend="eager")
    step(TOKENS)
    with fastaniso.probe(model) as probe:
        step(TOKENS)
    with pytest.raises(ValueError, match="compiled from outside does not see hooks: pass eager=True"):
        probe.results()
    with fastaniso.probe(model, eager=True) as probe:
        step(TOKENS)
    assert_saw(probe, passed(model, TOKENS))


def test_wrappers_are_no_part_of_names() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = net()
    states = passed(model, TOKENS)
    model.trunk[1] = checkpoint_wrapper(model.trunk[1])
    wrapped = nn.DataParallel(model)
    before = hooks_of(wrapped)  # wrappers have some of their own
    probe = fastaniso.probe(wrapped, "trunk.*.linear")
    assert probe.sites == ("trunk.0.linear", "trunk.1.linear", "trunk.2.linear")
    with fastaniso.probe(wrapped) as probe:
        wrapped(TOKENS).sum().backward()
    assert_saw(probe, states)
    assert hooks_of(wrapped) == before


def test_replicas_in_threads_count_together() -> None:
    """As ``DataParallel`` does on several GPUs: copies that share the hooks, each in a thread."""
    model = tiny.model("bert")
    barrier = threading.Barrier(3)
    with fastaniso.probe(model) as probe:

        def run(part: slice) -> None:
            barrier.wait()
            for _ in range(5):
                model(IDS[part], attention_mask=MASK[part])

        threads = [threading.Thread(target=run, args=(slice(i, i + 1),)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {d.n for d in probe.results().values()} == {5 * int(MASK.sum())}
    assert list(probe.results()) == ["embedding", "block.0", "block.1", "block.2"]


def test_results_print_and_save() -> None:
    model = net()
    with fastaniso.probe(model, gram=True, metrics=["drift"]) as probe:
        model(TOKENS)
    results = probe.results()
    text = str(results)
    assert [line.split()[0] for line in text.splitlines()[:5]] == ["site", "embedding", "block.0", "block.1", "block.2"]
    content = json.loads(results.to_json())
    assert [site["site"] for site in content["sites"]] == list(results)
    assert content["sites"][1]["mean_cosine"] == results["block.0"].mean_cosine
    scalars = results.scalars()
    assert scalars["mean_cosine/block.1"] == results["block.1"].mean_cosine
    assert scalars["drift_relative/block.1"] == results["block.1"].drift.relative
    assert all(isinstance(value, float) for value in scalars.values())
    with pytest.raises(KeyError, match=r"no site 'block\.9'; there are such as block"):
        results["block.9"]


def test_rows_that_cannot_be_normalised() -> None:
    model = net()
    with torch.no_grad():
        model.embed.weight[3] = float("nan")
    with fastaniso.probe(model, "embed") as probe:
        model(TOKENS)
    with pytest.raises(fastaniso.InvalidRowsError, match="site 'embed': hidden: row 3 holds NaN or Inf"):
        probe.results()
    with fastaniso.probe(model, "embed", invalid="omit") as probe:
        model(TOKENS)
    assert probe.results().scalars()["rows_invalid/embed"] == 1
