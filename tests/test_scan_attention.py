"""A scan with ``attention=True``: queries are the positions that are measured, keys all that the model attends to."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
from typer.testing import CliRunner

import fastaniso
from fastaniso.scanning import AttentionSite, ScanResult

TEXTS = [tiny.words(n, seed=n) for n in (5, 30, 12, 21, 3)]


def sharp(family: str) -> Any:
    """A tiny model whose attention is far from uniform."""
    model = tiny.model(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embed" not in name and "wte" not in name:
                parameter.mul_(8)
    return model


def scan(family: str, **options: Any) -> ScanResult:
    options = {"max_length": 16, "batch_size": 3, "attention": True, **options}
    return fastaniso.scan(sharp(family), TEXTS, tokenizer=tiny.tokenizer(), **options)


def figures(site: AttentionSite) -> dict[str, Any]:
    """Every number of a site, flat."""
    found: dict[str, Any] = {}

    def visit(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                visit(f"{name}.{key}", item)
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value):
                visit(f"{name}.{number}", item)
        elif isinstance(value, float) and not math.isnan(value):
            found[name] = value

    visit("", site.to_dict())
    return found


@pytest.mark.parametrize("family", ["bert", "gpt2", "gpt_neox", "llama", "albert"])
def test_each_sequence_alone_and_padded_batches_say_the_same(family: str) -> None:
    alone, padded = scan(family, batch_size=1).attention, scan(family, batch_size=7).attention
    assert alone is not None
    assert padded is not None
    names = [f"block.{i}" for i in range(4 if family == "albert" else 3)]
    assert [site.site for site in alone.sites] == [site.site for site in padded.sites] == names
    for a, b in zip(alone.sites, padded.sites, strict=True):
        assert a.attention.scores == b.attention.scores
        one, many = figures(a), figures(b)
        assert one.keys() == many.keys()
        assert len(one) > 100
        for name, value in one.items():
            # float32 passes of other shapes differ by a few ε a layer; a sink rate steps where a mean is near 0.3
            assert "sink_rate" in name or value == pytest.approx(many[name], rel=2e-3, abs=2e-4), name


def test_rows_are_those_of_eager_maps_of_whole_sequences() -> None:
    result = scan("bert")
    model, tokenizer = sharp("bert"), tiny.tokenizer()
    model.set_attn_implementation("eager")
    entropies, to_first, rows = [], [], 0
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), 14):
            piece = torch.tensor([[1, *ids[start : start + 14], 2]])
            with torch.no_grad():
                maps = model(piece, output_attentions=True).attentions[1][0].double()
            kept = maps[:, 1:-1]  # [CLS] and [SEP] are attended to, and are no rows
            entropies.append(-(kept * kept.log()).sum(-1))
            to_first.append(kept[..., 0])
            rows += kept.shape[1]
    assert result.attention is not None
    site = result.attention["block.1"]
    assert site.attention.rows == (rows,) * 4
    assert rows == result.tokens.kept
    assert site.attention.entropy == pytest.approx(torch.cat(entropies, 1).mean(1).tolist(), rel=1e-3)
    assert site.attention.attention_to[:, 0] == pytest.approx(torch.cat(to_first, 1).mean(1).tolist(), rel=1e-3)
    assert site.attended.queries.n == site.attended.keys.n == rows


def test_hidden_states_are_measured_as_without_attention() -> None:
    with_, without = scan("llama"), scan("llama", attention=False)
    assert without.attention is None
    assert without.to_dict()["attention"] is None
    assert {site.site: site.description.mean_cosine for site in with_.sites} == {
        site.site: site.description.mean_cosine for site in without.sites
    }
    assert with_.states.keys() == without.states.keys()


def test_both_stacks_and_what_lies_between_them() -> None:
    attention = scan("bart").attention
    assert attention is not None
    assert [(site.site, site.kind, site.attention.causal) for site in attention.sites] == [
        *((f"encoder.block.{i}", "self", False) for i in range(3)),
        *(
            (f"decoder.block.{i}.{name}", kind, causal)
            for i in range(2)
            for name, kind, causal in (("self_attn", "self", True), ("encoder_attn", "cross", False))
        ),
    ]
    # Keys of cross-attention are the encoder's measured positions.
    cross = attention["decoder.block.0.encoder_attn"].attended
    assert cross.keys.n == attention["encoder.block.0"].attended.keys.n


def whisper() -> Any:
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        vocab_size=99,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        decoder_start_token_id=1,
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_mel_bins=16,
        max_source_positions=20,
        max_target_positions=20,
    )
    return transformers.AutoModel.from_config(config).eval()


def test_batches_of_sounds_are_masked_frame_by_frame() -> None:
    heard = torch.ones(2, 40, dtype=torch.long)
    heard[0, 24:] = 0
    ids = torch.randint(4, 99, (2, 7))
    batch = {"input_features": torch.randn(2, 16, 40), "attention_mask": heard, "decoder_input_ids": ids}
    result = fastaniso.scan(whisper(), [batch], attention=True)
    assert result.attention is not None
    frames, tokens = 12 + 20, 14
    rows = {site.site: (site.attended.queries.n, site.attended.keys.n) for site in result.attention.sites}
    assert rows == {
        "encoder.block.0": (frames, frames),
        "encoder.block.1": (frames, frames),
        "decoder.block.0.self_attn": (tokens, tokens),
        "decoder.block.0.encoder_attn": (tokens, frames),
    }
    # Whisper attends to what is padding, too: the mask of the frames is not for its scores.
    assert result.attention["encoder.block.0"].attention.scores == (frames * 20,) * 4


def test_patches_attend_to_the_class_token_and_are_the_only_rows() -> None:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=48,
        num_hidden_layers=2,
        image_size=16,
        patch_size=4,
    )
    model = transformers.AutoModel.from_config(config).eval()
    result = fastaniso.scan(model, [{"pixel_values": torch.randn(3, 3, 16, 16)}], attention=True)
    assert result.attention is not None
    site = result.attention["block.1"]
    assert (site.attention.rows[0], site.attention.scores[0]) == (3 * 16, 3 * 16 * 17)


def test_a_model_without_attention_is_refused_after_one_batch() -> None:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    model = transformers.AutoModel.from_config(config).eval()
    with pytest.raises(ValueError, match=r"attention: ResNetModel made no attention that can be seen.* such as a CNN"):
        fastaniso.scan(model, [{"pixel_values": torch.randn(2, 3, 32, 32)}] * 2, attention=True)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_ends_early_keeps_its_attention() -> None:
    model = sharp("bert")

    def stop(progress: Any) -> None:
        if progress.done > 20:
            raise RuntimeError("enough")

    with pytest.raises(fastaniso.scanning.ScanStoppedError, match="enough") as stopped:
        fastaniso.scan(
            model, TEXTS, tokenizer=tiny.tokenizer(), max_length=16, batch_size=1, attention=True, progress=stop
        )
    result = stopped.value.result
    assert result.attention is not None
    assert result.attention["block.0"].attention.rows == (result.tokens.kept,) * 4
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_command_line_prints_saves_and_gives_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastaniso.cli.commands import app

    monkeypatch.setattr("fastaniso.scanning.result.save_pictures", lambda *_: [])  # they take seconds
    folder, text, out = tiny.saved("llama", tmp_path / "model"), tmp_path / "text.txt", tmp_path / "out"
    text.write_text(" ".join(TEXTS))
    command = ["scan", str(folder), "--text", str(text), "--attention", "--max-length", "16", "--quiet"]
    done = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("block.2") and "rotation" in line]
    assert "4/2  after rotation" in line
    content = json.loads((out / "scan.json").read_text())
    sites = content["attention"]["sites"]
    assert [site["site"] for site in sites] == ["block.0", "block.1", "block.2"]
    assert (sites[0]["heads"], sites[0]["key_heads"], sites[0]["kind"]) == (4, 2, "self")
    assert sites[0]["attended"]["position"] == "after rotation"
    assert sites[0]["projected"]["position"] == "before rotation"
    assert len(sites[0]["attention"]["entropy"]) == len(sites[0]["attended"]["cosine_of_means"]) == 4
    assert content["attention"]["conventions"]["cosine_of_means"].startswith("cos(mean query, mean key), signed")
    state = fastaniso.load_state(out / "states" / "block.1.attention.safetensors")
    assert isinstance(state, fastaniso.Attention)
    assert int(state.histogram[0].sum()) == sites[1]["attention"]["scores"][0]
    before = fastaniso.load_state(out / "states" / "block.1.keys_before_rotation.safetensors")
    assert isinstance(before, fastaniso.HeadMoments)
    assert before.heads == 2
