"""The modality of the data, with what the model's folder has for it: a tokenizer, a processor."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from fastaniso.models.inputs import feeds_decoder
from fastaniso.models.loading import load_feature_extractor, load_image_processor, load_tokenizer
from fastaniso.scanning.modalities.given import GivenModality
from fastaniso.scanning.modalities.modality import Modality, refuse
from fastaniso.scanning.modalities.speech import SpeechModality
from fastaniso.scanning.modalities.text import TextModality
from fastaniso.scanning.modalities.vision import VisionModality
from fastaniso.sources import Data, Images, Sounds, Texts

BATCH_SIZE = 32
"""Sequences or images a forward pass by default."""

CLIPS = 8
"""Clips a forward pass by default: one is thousands of frames in the first convolutions."""


def open_modality(
    data: Data,
    network: nn.Module,
    name: str | None,
    *,
    tokenizer: Any,
    processor: Any,
    batch_size: int | None,
    max_items: int | None,
    max_seconds: float | None,
    **text: Any,
) -> Modality:
    """The modality for ``data``; ``name`` is the folder or hub id of the model, None if it was given as a module.

    ``text`` are ``max_length``, ``chunk_words`` and ``max_tokens``. Options that mean nothing for the data are refused.
    """
    if isinstance(data, Texts):
        refuse("texts", processor=processor, max_items=max_items, max_seconds=max_seconds)
        tokenizer = _own(tokenizer, name, load_tokenizer, "tokenizer", "AutoTokenizer")
        return TextModality(data, network, tokenizer, batch_size=batch_size or BATCH_SIZE, **text)
    if isinstance(data, Sounds):
        refuse("sounds", **text)
        processor = _own(processor, name, load_feature_extractor, "processor", "AutoFeatureExtractor")
        if data.transcribed and feeds_decoder(network) and (tokenizer is not None or name is not None):
            tokenizer = _own(tokenizer, name, load_tokenizer, "tokenizer", "AutoTokenizer")
        return SpeechModality(
            data,
            network,
            processor,
            tokenizer,
            max_seconds=max_seconds,
            max_items=max_items,
            batch_size=batch_size or CLIPS,
        )
    if isinstance(data, Images):
        refuse("images", tokenizer=tokenizer, max_seconds=max_seconds, **text)
        processor = _own(processor, name, load_image_processor, "processor", "AutoImageProcessor")
        return VisionModality(data, network, processor, max_items=max_items, batch_size=batch_size or BATCH_SIZE)
    refuse(
        "batches that are ready for the model",
        tokenizer=tokenizer,
        processor=processor,
        batch_size=batch_size,
        max_items=max_items,
        max_seconds=max_seconds,
        **text,
    )
    return GivenModality(data, network)


def _own(given: Any, name: str | None, load: Any, option: str, maker: str) -> Any:
    if isinstance(given, str | os.PathLike):
        return load(given)
    if given is not None:
        return given
    if name is None:
        raise ValueError(f"{option}: a model given as a module needs its {option}, such as {maker}'s")
    return load(name)
