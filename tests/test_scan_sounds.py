"""Sounds through a scan: padded frames never count, recordings take the model's rate, bad files are skipped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_senses
import torch
from torch import Tensor

import fastaniso
from fastaniso.scanning import ScanResult
from fastaniso.sources import as_sounds
from fastaniso.sources import sounds as sounds_module

soundfile: Any = pytest.importorskip("soundfile", reason="sounds need the package soundfile")
soxr: Any = pytest.importorskip("soxr", reason="sounds of another rate need the package soxr")

RATE = tiny_senses.RATE
LENGTHS = (0.2, 0.11, 0.31, 0.2, 0.07)
HUMS = [tiny_senses.hum(seconds, seed=seed) for seed, seconds in enumerate(LENGTHS)]


def scan(family: str, sounds: Any = None, **options: Any) -> ScanResult:
    given = [(samples, RATE) for samples in HUMS] if sounds is None else sounds
    processor = tiny_senses.extractor(family)
    return fastaniso.scan(tiny_senses.model(family), given, processor=processor, **options)


def alone(family: str, **inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        output = tiny_senses.model(family)(**inputs, output_hidden_states=True)
    states: tuple[Tensor, ...] = output.hidden_states if family != "whisper" else output.encoder_hidden_states
    return states


@pytest.mark.parametrize("family", ["wav2vec2", "wav2vec2_stable", "hubert", "wavlm"])
def test_batches_of_clips_agree_with_each_clip_alone(family: str) -> None:
    result = scan(family, batch_size=3)
    extract = tiny_senses.extractor(family)
    rows: list[list[Tensor]] = []
    for samples in HUMS:
        values = extract(samples, sampling_rate=RATE, return_tensors="pt").input_values
        rows.append([state[0] for state in alone(family, input_values=values)])
    groups = torch.cat([torch.full((len(each[0]),), i) for i, each in enumerate(rows)])
    for layer, site in enumerate(("embedding", "block.0", "block.1")):
        d, states = result[site].description, torch.cat([each[layer] for each in rows])
        expected = fastaniso.describe(states.double(), groups=groups, backend="reference")
        assert d.n == expected.n
        # Group norm aside, convolutions of a padded batch differ from those of one clip by a few ε.
        assert d.mean_cosine == pytest.approx(expected.mean_cosine, rel=1e-4, abs=1e-6)
        assert d.isoscore == pytest.approx(expected.isoscore, rel=1e-3)
        assert result[site].within_sequence == pytest.approx(expected.within_groups, rel=1e-4, abs=1e-6)
    padded = "stable" in family
    assert ("padding" in result.tokens.dropped) == padded
    assert any("equal length share a batch" in note for note in result.notes) == (not padded)
    assert (result.tokens.unit, result.tokens.item, result.tokens.sequences) == ("frames", "clips", len(HUMS))


def test_whisper_counts_every_second_frame_of_what_was_heard() -> None:
    result = scan("whisper", batch_size=2)
    # A spectrum every 160 samples, the encoder takes every second: frame k is heard if sample 320·k is.
    heard = sum(-(-len(samples) // 320) for samples in HUMS)
    assert result.tokens.kept == result["encoder.block.0"].description.n == heard
    assert result.tokens.dropped == {"padding": 50 * len(HUMS) - heard}
    assert "encoder.post_final_norm" in result.states
    assert any("no sound (NAME.wav) has its transcript" in note for note in result.notes)
    extract = tiny_senses.extractor("whisper")
    kept = []
    for samples in HUMS:
        features = extract(samples, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
        (states,) = alone("whisper", input_features=features.input_features, decoder_input_ids=torch.tensor([[1]]))[1]
        kept.append(states[features.attention_mask[0, ::2].bool()])
    expected = fastaniso.mean_cosine(torch.cat(kept).double(), backend="reference")
    assert result["encoder.block.0"].description.mean_cosine == pytest.approx(expected, rel=1e-4)


def test_transcripts_are_what_the_decoder_reads(tmp_path: Path) -> None:
    model = tiny_senses.saved("whisper", tmp_path / "model")
    folder = tmp_path / "sounds"
    folder.mkdir()
    for number, words in enumerate((4, 7, 0)):
        soundfile.write(folder / f"{number}.wav", HUMS[number], RATE)
        if words:
            (folder / f"{number}.txt").write_text(tiny.words(words))
    result = fastaniso.scan(model, folder)
    assert list(result.stacks) == ["encoder.", "decoder."]
    decoder = result["decoder.block.1"]
    assert decoder.description.n == 11
    # [CLS] and [SEP] of three sequences, the third without a word; the longest has nine tokens.
    assert decoder.masked == {"special": 6, "padding": 3 * 9 - 11 - 6}
    assert result["encoder.block.0"].masked.keys() == {"padding"}


def test_files_of_any_rate_and_number_of_channels(tmp_path: Path) -> None:
    folder = tiny_senses.write_sounds(tmp_path / "sounds")
    result = fastaniso.scan(tiny_senses.saved("wav2vec2_stable", tmp_path / "model"), folder, max_seconds=0.2)
    assert result.tokens.sequences == 2 + 2 + 3 + 2
    assert "1 of the recordings: resampled from 8000 to 16000 Hz" in result.notes
    assert "1 of the recordings: 2 channels averaged" in result.notes
    assert result.provenance["sampling_rate"] == RATE
    state = result.states["block.0"]
    assert list((state.moments if isinstance(state, fastaniso.Gram) else state).coverage.ranges) == [str(folder)]


def test_resampling_in_blocks_gives_what_resampling_at_once_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sounds_module, "BLOCK_SECONDS", 1)
    samples = tiny_senses.hum(3.3, rate=8000)
    soundfile.write(tmp_path / "long.wav", samples, 8000, subtype="FLOAT")
    clips = list(as_sounds(tmp_path / "long.wav").clips(rate=RATE, most=RATE // 2, least=10))
    assert [len(clip.samples) for clip in clips[:-1]] == [RATE // 2] * 6
    assert sum(clip.bytes for clip in clips) == pytest.approx((tmp_path / "long.wav").stat().st_size, rel=1e-2)
    together = np.concatenate([clip.samples for clip in clips])
    np.testing.assert_allclose(together, soxr.resample(samples, 8000, RATE), atol=1e-6)


def test_bad_recordings_are_skipped_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    nan = HUMS[0].copy()
    nan[100] = np.nan
    for name, samples in (
        ("good", HUMS[0]),
        ("silent", np.zeros(4000)),
        ("short", HUMS[0][:20]),
        ("none", HUMS[0][:0]),
    ):
        soundfile.write(folder / f"{name}.wav", samples, RATE)
    soundfile.write(folder / "nan.wav", nan, RATE, subtype="FLOAT")
    (folder / "corrupt.wav").write_bytes(b"RIFF what is this")
    (folder / "corrupt.flac").write_bytes(b"fLaC" + bytes(range(200)))
    (folder / "notes.pdf").write_bytes(b"%PDF")
    result = scan("wav2vec2", folder)
    skipped = {reason.partition(" ")[0]: count for reason, count in result.tokens.skipped.items()}
    assert skipped["silent"] == skipped["shorter"] == skipped["empty"] == skipped["holds"] == skipped["neither"] == 1
    assert sum(count for reason, count in result.tokens.skipped.items() if reason.startswith("unreadable")) == 2
    assert result.tokens.sequences == 1
    assert any("silent.wav" in note for note in result.notes)
    assert "clips skipped" in str(result)
    good = scan("wav2vec2", folder / "good.wav")
    assert result["block.1"].description.mean_cosine == good["block.1"].description.mean_cosine


def test_nothing_but_bad_recordings_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(4000), RATE)
    with pytest.raises(ValueError, match=r"data: no frames in .*skipped: 1 × silent .*silent\.wav"):
        scan("wav2vec2", tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 5}, "max_tokens: means nothing for sounds"),
        ({"max_seconds": -1}, "max_seconds: expected a positive number, got -1"),
        ({"sounds": [("text", "text")]}, r"expected sounds as \(samples, rate\)"),
        ({"sounds": [(np.zeros(9, np.int16), RATE)]}, r"expected sounds as \(samples, rate\)"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        scan("wav2vec2", **options)


def test_a_clip_longer_than_whisper_reads_is_refused() -> None:
    with pytest.raises(ValueError, match="max_seconds: the model reads 1 s at a time, got 2"):
        scan("whisper", max_seconds=2)


def test_max_items_is_a_limit_and_said() -> None:
    result = scan("wav2vec2", max_items=2)
    assert (result.tokens.sequences, result.tokens.limited) == (2, True)
    assert any("first clips of the data" in note for note in result.notes)


def test_a_model_of_images_is_told() -> None:
    with pytest.raises(ValueError, match="model: expected a model of sounds"):
        fastaniso.scan(tiny_senses.model("vit"), [(HUMS[0], RATE)], processor=tiny_senses.extractor("wav2vec2"))


@pytest.mark.parametrize(("package", "rate"), [("soundfile", RATE), ("soxr", 8000)])
def test_a_missing_package_is_named(package: str, rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "hum.wav", HUMS[0], rate)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs the package {package}.* pip install 'fastaniso\[audio\]'"):
        scan("wav2vec2", tmp_path)
