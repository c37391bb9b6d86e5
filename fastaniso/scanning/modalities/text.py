"""Texts as sequences of tokens: subwords, characters or bytes, whatever the tokenizer makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from fastaniso.models import forward_arguments
from fastaniso.models.inputs import feeds_decoder, position_limit, takes_attention_mask, vocabulary
from fastaniso.models.masks import Mask, token_mask
from fastaniso.scanning.modalities.modality import Modality, ModelBatch
from fastaniso.sources import Batch, Text, Texts, batches, chunks
from fastaniso.sources.chunks import limited

DEFAULT_LENGTH = 128
"""Tokens a sequence where texts are cut by tokens."""

LONGEST_DEFAULT = 512
"""Tokens a sequence at most where texts are cut by words and the model does not set its own limit."""

PROBE_TOKENS = 16
"""Tokens of the pass that is watched to find the blocks: enough to see the flow, too few to cost anything."""


class TextModality(Modality):
    """Texts for a model of tokens; an encoder–decoder reads the same ids in its decoder."""

    unit: ClassVar[str] = "tokens"
    item: ClassVar[str] = "sequences"
    mask = "attention mask without special tokens and BOS"

    def __init__(
        self,
        texts: Texts,
        network: nn.Module,
        tokenizer: Any,
        *,
        max_length: int | None,
        chunk_words: int | None,
        max_tokens: int | None,
        batch_size: int,
    ) -> None:
        """Check the options against what the model takes."""
        super().__init__(network)
        self.name, self.size, self.identity, self.limit = texts.name, texts.size, texts.identity, max_tokens
        self._texts = texts
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._chunk_words = chunk_words
        self._length = _sequence_length(network, tokenizer, max_length, chunk_words)
        self._pad_id = _pad_id(network, tokenizer, self.notes)
        if feeds_decoder(network):
            self.notes.append("the decoder was given the same ids as the encoder, not shifted")
        self.provenance = {
            "tokenizer": f"{type(tokenizer).__name__} of {getattr(tokenizer, 'name_or_path', '') or 'no name'}",
            "max_length": self._length,
            "chunk_words": chunk_words,
            "batch_size": batch_size,
            "max_tokens": max_tokens,
        }

    def batches(self) -> Iterator[ModelBatch]:
        """Texts cut into sequences, those of like length together."""
        sequences = chunks(
            self._counted(self._texts), self._tokenizer, max_length=self._length, chunk_words=self._chunk_words
        )
        stream = batches(
            limited(sequences, self.limit),
            batch_size=self._batch_size,
            pad_id=self._pad_id,
            # CANINE reads so many characters at a time, and none if there are fewer.
            multiple_of=getattr(getattr(self.network, "config", None), "downsampling_rate", 1),
        )
        for batch in stream:
            self._check_ids(batch)
            yield self._model_batch(batch.ids, batch.attention, batch.codes, batch.bytes)

    def first(self, batch: ModelBatch) -> ModelBatch:
        """The first tokens of one sequence."""
        assert isinstance(batch.masks, _TokenMasks)
        tensors = batch.arguments["input_ids"], batch.arguments.get("attention_mask"), batch.masks.codes
        ids, attention, codes = (None if t is None else t[:1, :PROBE_TOKENS] for t in tensors)
        return self._model_batch(ids, attention, codes, 0.0)

    def nothing(self) -> ValueError:
        """Nothing, or nothing but special tokens."""
        return ValueError(f"{super().nothing()}: empty, or nothing but special tokens")

    def _model_batch(self, ids: Any, attention: Any, codes: Any, size: float) -> ModelBatch:
        arguments = forward_arguments(self.network, ids, attention)
        return ModelBatch(arguments, len(ids), _TokenMasks(self.network, codes), size)

    def _counted(self, texts: Texts) -> Iterator[Text]:
        for number, text in enumerate(texts):
            if text.begins and not text.content.strip():
                self.skips.add("empty text", f"text {number}")
            yield text

    def _check_ids(self, batch: Batch) -> None:
        """On a GPU an id without an embedding would end the process's use of the GPU: told here instead."""
        known, largest = vocabulary(self.network), int(batch.ids.max())
        if known is not None and largest >= known:
            raise ValueError(
                f"tokenizer: gives id {largest}, and the model has embeddings for {known} ids; use the model's own"
            )


@dataclass(frozen=True)
class _TokenMasks:
    """The masks of the states of one batch of tokens."""

    network: nn.Module
    codes: Tensor

    def __call__(self, prefix: str, shape: tuple[int, int]) -> Mask:
        return token_mask(self.network, self.codes, shape)


def _sequence_length(network: nn.Module, tokenizer: Any, max_length: int | None, chunk_words: int | None) -> int:
    limit = position_limit(network)
    special = tokenizer.num_special_tokens_to_add(pair=False)
    if max_length is not None and max_length <= special:
        raise ValueError(f"max_length: expected more than the {special} special tokens of a sequence, got {max_length}")
    if max_length is None:
        wanted = DEFAULT_LENGTH if chunk_words is None else LONGEST_DEFAULT
        return wanted if limit is None else min(wanted, limit)
    if limit is not None and max_length > limit:
        raise ValueError(f"max_length: the model has positions for {limit} tokens, got {max_length}")
    return max_length


def _pad_id(network: nn.Module, tokenizer: Any, notes: list[str]) -> int | None:
    """The id to pad with, or None where padding cannot be hidden from the model."""
    if not takes_attention_mask(network):
        notes.append("the model takes no attention mask: only sequences of equal length share a batch, without padding")
        return None
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    notes.append("the tokenizer has no pad token: padded with EOS (or id 0), which attention and statistics leave out")
    return int(tokenizer.eos_token_id or 0)
