"""Sounds as frames of waveforms (wav2vec2, HuBERT, WavLM) or spectrograms (Whisper); a decoder reads transcripts.

Padded frames are never measured. A model whose feature extractor gives no attention mask (wav2vec2-base, whose first
norm is over time) would see the padding, so only clips of one length share its batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastaniso.models.inputs import feeds_decoder, takes, without_cache
from fastaniso.models.masks import MEASURED, PADDING, SPECIAL, Mask, MaskError, frame_mask, token_mask
from fastaniso.scanning.modalities.modality import Modality, ModelBatch
from fastaniso.sources import Clip, Sounds
from fastaniso.sources.batches import WINDOW

DEFAULT_SECONDS = 10.0
"""Seconds of a clip at most, where the model does not read a fixed length."""

WAVEFORM, SPECTROGRAM = "input_values", "input_features"


class SpeechModality(Modality):
    """Sounds for a model of speech; a decoder reads the transcripts where there are any."""

    unit: ClassVar[str] = "frames"
    item: ClassVar[str] = "clips"
    mask = "frames made of padding left out; of a decoder's tokens, padding and special ones"

    def __init__(
        self,
        sounds: Sounds,
        network: nn.Module,
        extractor: Any,
        tokenizer: Any,
        *,
        max_seconds: float | None,
        max_items: int | None,
        batch_size: int,
    ) -> None:
        """Check the options against what the model takes."""
        super().__init__(network)
        self.name, self.size, self.identity, self.skips = sounds.name, sounds.size, sounds.identity, sounds.skips
        self._sounds = sounds
        self._extractor = extractor
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self.most_items = max_items
        self._input: str = extractor.model_input_names[0]
        if self._input not in (WAVEFORM, SPECTROGRAM) or not takes(network, self._input):
            raise ValueError(
                f"model: expected a model of sounds, whose forward takes {WAVEFORM} or {SPECTROGRAM}, got "
                f"{type(network).__name__} with an extractor of {self._input}"
            )
        self._rate = int(extractor.sampling_rate)
        self._fixed = getattr(extractor, "n_samples", None) if self._input == SPECTROGRAM else None
        self._most = self._longest_clip(max_seconds)
        self._attends = self._input == WAVEFORM and extractor.return_attention_mask and takes(network, "attention_mask")
        if not self._attends and self._fixed is None:
            self.notes.append(
                "the feature extractor gives no attention mask: only clips of equal length share a batch, unpadded"
            )
        self._decodes = feeds_decoder(network)
        if self._decodes and sounds.transcribed and tokenizer is None:
            raise ValueError("tokenizer: the transcripts beside the sounds need the model's tokenizer for its decoder")
        self.provenance = {
            "feature_extractor": type(extractor).__name__,
            "sampling_rate": self._rate,
            "max_seconds": self._most / self._rate,
            "batch_size": batch_size,
            "max_items": max_items,
        }

    def batches(self) -> Iterator[ModelBatch]:
        """Clips, those of like length together."""
        stream = islice(self._sounds.clips(rate=self._rate, most=self._most, least=self._shortest()), self.most_items)
        while window := list(islice(stream, WINDOW * self._batch_size)):
            window.sort(key=lambda clip: len(clip.samples), reverse=True)
            padded = self._attends or self._fixed is not None
            runs = [window] if padded else [list(run) for _, run in groupby(window, lambda clip: len(clip.samples))]
            for run in runs:
                for start in range(0, len(run), self._batch_size):
                    yield self._model_batch(run[start : start + self._batch_size])

    def remarks(self) -> list[str]:
        """With what was done to the recordings."""
        changes = self._sounds.changes.items()
        return [*super().remarks(), *(f"{count:,} of the recordings: {what}" for what, count in changes)]

    def _longest_clip(self, max_seconds: float | None) -> int:
        if max_seconds is not None and not max_seconds > 0:
            raise ValueError(f"max_seconds: expected a positive number, got {max_seconds!r}")
        if self._fixed is not None:
            if max_seconds is not None and max_seconds * self._rate > self._fixed:
                raise ValueError(
                    f"max_seconds: the model reads {self._fixed / self._rate:g} s at a time, got {max_seconds:g}"
                )
            return int(max_seconds * self._rate) if max_seconds is not None else int(self._fixed)
        return int((DEFAULT_SECONDS if max_seconds is None else max_seconds) * self._rate)

    def _shortest(self) -> int:
        """The fewest samples that make a frame."""
        if self._fixed is not None:
            return 2 * int(self._extractor.hop_length)
        config = getattr(self.network, "config", None)
        samples = 1
        layers = list(zip(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()), strict=True))
        for kernel, stride in reversed(layers):
            samples = (samples - 1) * stride + kernel
        return samples

    def _model_batch(self, clips: list[Clip]) -> ModelBatch:
        inputs = self._extractor(
            [clip.samples for clip in clips],
            sampling_rate=self._rate,
            padding="max_length" if self._fixed is not None else True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        arguments: dict[str, Any] = {self._input: inputs[self._input], **without_cache(self.network)}
        if self._attends:
            arguments["attention_mask"] = inputs["attention_mask"]
        codes = None
        if self._decodes:
            ids, codes = self._decoder_ids(clips)
            arguments["decoder_input_ids"] = ids
            if takes(self.network, "decoder_attention_mask"):
                arguments["decoder_attention_mask"] = (codes != PADDING).long()
        masks = _SpeechMasks(self.network, inputs["attention_mask"], codes, self._sounds.transcribed)
        return ModelBatch(arguments, len(clips), masks, sum(clip.bytes for clip in clips))

    def _decoder_ids(self, clips: list[Clip]) -> tuple[Tensor, Tensor]:
        """The transcripts' ids with their codes, or the start token alone."""
        config: Any = self.network.config
        if not self._sounds.transcribed:
            ids = torch.full((len(clips), 1), int(config.decoder_start_token_id))
            return ids, torch.full_like(ids, SPECIAL, dtype=torch.int8)
        encoded = [
            self._tokenizer(
                clip.transcript or "",
                truncation=True,
                max_length=getattr(config, "max_target_positions", None),
                return_special_tokens_mask=True,
            )
            for clip in clips
        ]
        length = max(len(each["input_ids"]) for each in encoded)
        ids = torch.full((len(clips), length), int(self._tokenizer.pad_token_id or 0))
        codes = torch.full((len(clips), length), PADDING, dtype=torch.int8)
        for row, each in enumerate(encoded):
            count = len(each["input_ids"])
            ids[row, :count] = torch.tensor(each["input_ids"])
            codes[row, :count] = torch.tensor([SPECIAL if mark else MEASURED for mark in each["special_tokens_mask"]])
        return ids, codes


@dataclass(frozen=True)
class _SpeechMasks:
    """The masks of the states of one batch: frames, and the decoder's tokens."""

    network: nn.Module
    real: Tensor
    codes: Tensor | None
    transcribed: bool

    def __call__(self, prefix: str, shape: tuple[int, int]) -> Mask:
        if prefix != "decoder.":
            return frame_mask(self.network, self.real, shape)
        if not self.transcribed or self.codes is None:
            raise MaskError(
                "its decoder has nothing to read: no sound (NAME.wav) has its transcript (NAME.txt) beside it"
            )
        return token_mask(self.network, self.codes, shape)
