"""The caller's own batches: what they hold says what is measured; what ends early keeps what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_senses
import torch
from torch import Tensor, nn

import fastaniso
from fastaniso.scanning import Progress, ScanInterrupted, ScanStoppedError

IDS = torch.randint(4, tiny.VOCABULARY, (6, 10), generator=torch.Generator().manual_seed(1))
IDS[:, 0] = 1
ATTENTION = torch.ones_like(IDS)
ATTENTION[2:, 7:] = 0


def states(model: nn.Module, **arguments: Tensor) -> Tensor:
    """What the first block gives."""
    with torch.no_grad():
        return model(**arguments, output_hidden_states=True).hidden_states[1]


def agrees(found: fastaniso.Description, rows: Tensor) -> bool:
    expected = fastaniso.mean_cosine(rows.double(), backend="reference")
    return found.n == len(rows) and found.mean_cosine == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_padding_and_bos_are_left_out_of_token_ids() -> None:
    model = tiny.model("llama")
    result = fastaniso.scan(model, [{"input_ids": IDS, "attention_mask": ATTENTION}])
    keep = ATTENTION.bool()
    keep[:, 0] = False
    hidden = states(model, input_ids=IDS, attention_mask=ATTENTION)
    assert agrees(result["block.0"].description, hidden[keep])
    assert result.tokens.dropped == {"special": 6, "padding": 12}
    assert "post_final_norm" in result.states


def test_what_a_tokenizer_gives_can_be_handed_on() -> None:
    model, tokenizer = tiny.model("bert"), tiny.tokenizer()
    texts = [tiny.words(n, seed=n) for n in (5, 9, 3)]
    batch = tokenizer(texts, padding=True, return_tensors="pt", return_special_tokens_mask=True)
    given = fastaniso.scan(model, [batch])
    own = fastaniso.scan(model, texts, tokenizer=tokenizer, max_length=16)
    assert given.tokens.kept == own.tokens.kept == 17
    assert given.tokens.dropped == own.tokens.dropped
    assert given["block.1"].description.mean_cosine == pytest.approx(own["block.1"].description.mean_cosine, abs=1e-6)


def test_a_mask_of_the_batch_decides_alone() -> None:
    model = tiny.model("bert")
    mask = torch.zeros_like(IDS, dtype=torch.bool)
    mask[:, 3:5] = True
    result = fastaniso.scan(model, [{"input_ids": IDS, "mask": mask}])
    assert agrees(result["block.0"].description, states(model, input_ids=IDS)[mask])
    assert result.tokens.dropped == {"masked": 48}


def test_sequences_of_other_lengths_in_each_batch() -> None:
    model = tiny.model("llama")
    result = fastaniso.scan(model, ({"input_ids": IDS[:, :length]} for length in (10, 4, 7)))
    assert result.tokens.kept == 6 * (9 + 3 + 6)
    assert (result.tokens.sequences, result.tokens.batches) == (18, 3)


def test_both_stacks_have_masks_of_their_own() -> None:
    batch = {
        "input_ids": IDS,
        "attention_mask": ATTENTION,
        "decoder_input_ids": IDS[:, :6],
        "decoder_attention_mask": ATTENTION[:, :6],
    }
    result = fastaniso.scan(tiny.model("t5"), [batch])
    assert result["encoder.block.0"].masked == {"special": 6, "padding": 12}
    assert result["decoder.block.0"].masked == {"special": 6}
    assert result["decoder.block.0"].description.n == 30


def test_pixels_and_samples() -> None:
    images = fastaniso.scan(tiny_senses.model("deit"), [{"pixel_values": torch.randn(2, 3, 32, 32)}])
    assert images.tokens.dropped == {"class token": 2, "distillation token": 2}
    real = torch.ones(2, 1200, dtype=torch.int64)
    real[1, 700:] = 0
    samples = {"input_values": torch.randn(2, 1200), "attention_mask": real}
    sounds = fastaniso.scan(tiny_senses.model("hubert_stable"), [samples])
    # One frame of 10 then 8 samples at strides of 5 and 4: ((n − 10) // 5 + 1 − 8) // 4 + 1.
    assert sounds.tokens.kept == 58 + 33
    mels = {"input_features": torch.randn(2, 16, 100), "decoder_input_ids": IDS[:2]}
    whisper = fastaniso.scan(tiny_senses.model("whisper"), [mels])
    assert (whisper["encoder.block.0"].description.n, whisper["decoder.block.0"].description.n) == (100, 18)


class Foreign(nn.Module):
    """No model of transformers: other arguments, no configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2))

    def forward(self, series: Tensor, scale: float) -> Tensor:
        state = series * scale
        for layer in self.layers:
            state = layer(state)
        return state


def test_any_module_with_arguments_of_its_own() -> None:
    torch.manual_seed(0)
    model, series = Foreign().eval(), torch.randn(3, 5, 8)
    result = fastaniso.scan(model, [{"series": series, "scale": 2.0}])
    assert agrees(result["embedding"].description, (2 * series).flatten(0, 1))
    assert any("every position counts" in note for note in result.notes)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ({"input_ids": [[1, 2]]}, TypeError, r"data\[0\]: expected a dict of tensors"),
        (
            {"input_ids": IDS, "attention_mask": ATTENTION[:2]},
            ValueError,
            r"as many items each, got .*'attention_mask': 2",
        ),
        ({"input_ids": IDS[:0]}, ValueError, "at least one item"),
        ({"input_ids": IDS, "mask": ATTENTION}, ValueError, r"mask: expected bool .* pass mask\.bool\(\)"),
        (
            {"input_ids": IDS, "mask": ATTENTION[:, :4].bool()},
            ValueError,
            "that a mask fits.* where the batch's mask is",
        ),
    ],
)
def test_wrong_batches_are_named(batch: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastaniso.scan(tiny.model("bert"), [batch])


def test_options_that_mean_nothing_for_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size: means nothing for batches that are ready for the model, got 4"):
        fastaniso.scan(tiny.model("bert"), [{"input_ids": IDS}], batch_size=4)


@pytest.mark.parametrize("data", [[3, 4], [object()]], ids=["numbers", "objects"])
def test_data_of_no_kind_are_named(data: Any) -> None:
    with pytest.raises(TypeError, match=r"data\[0\]: expected paths, or an iterable of strings, .* got"):
        fastaniso.scan(tiny.model("bert"), data)


def test_an_error_in_the_middle_keeps_what_was_measured() -> None:
    def given() -> Iterator[dict[str, Any]]:
        yield {"input_ids": IDS}
        yield {"input_ids": IDS + 1}
        yield {"input_ids": IDS, "mask": ATTENTION}

    with pytest.raises(
        ScanStoppedError, match=r"data\[2\]: mask: expected bool .*in batch 2, counted from 0"
    ) as stopped:
        fastaniso.scan(tiny.model("bert"), given())
    kept = stopped.value.result
    whole = fastaniso.scan(tiny.model("bert"), [{"input_ids": IDS}, {"input_ids": IDS + 1}])
    assert not kept.complete
    assert kept.tokens == whole.tokens
    assert kept["block.2"].description.mean_cosine == whole["block.2"].description.mean_cosine
    assert "NOT COMPLETE" in str(kept)
    assert kept.to_dict()["complete"] is False


def test_an_interruption_keeps_what_was_measured(tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.steps == 2:
            raise KeyboardInterrupt

    with pytest.raises(ScanInterrupted) as stopped:
        fastaniso.scan(tiny.model("bert"), [{"input_ids": IDS}] * 5, progress=interrupt)
    assert stopped.value.result.tokens.batches == 2
    stopped.value.result.save(tmp_path, pictures=False)
    assert not (tmp_path / "plots").exists()
    assert isinstance(fastaniso.load_state(tmp_path / "states" / "block.0.safetensors"), fastaniso.Gram)


def test_what_an_interruption_inside_the_model_cut_off_is_told() -> None:
    model = tiny.model("bert")
    calls = 0

    def interrupt(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:  # the watched pass, one batch, and in the middle of the next
            raise KeyboardInterrupt

    model.encoder.layer[2].register_forward_pre_hook(interrupt)
    with pytest.raises(ScanInterrupted) as stopped:
        fastaniso.scan(model, [{"input_ids": IDS}] * 5)
    kept = stopped.value.result
    assert kept["block.1"].description.n == 2 * kept["block.2"].description.n
    assert any("did not reach lack its rows" in note for note in kept.notes)
