"""Texts cut into sequences of token ids, each with its special tokens marked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fastaniso.models.masks import MEASURED, OVER_LIMIT, SPECIAL
from fastaniso.sources.texts import Text

TOGETHER = 1 << 18
"""Characters given to the tokenizer at once: it is quickest on many texts, and short waits keep progress live."""


@dataclass(frozen=True)
class Chunk:
    """One sequence: its ids, of each whether it is measured, special or over the limit, and its share of the bytes."""

    ids: list[int]
    codes: list[int]
    bytes: float

    @property
    def kept(self) -> int:
        """Tokens that will be measured."""
        return self.codes.count(MEASURED)


def chunks(
    texts: Iterable[Text], tokenizer: Any, *, max_length: int, chunk_words: int | None = None
) -> Iterator[Chunk]:
    """Sequences of at most ``max_length`` tokens, special tokens included; no token is left out.

    A text longer than that goes on in the next sequence. ``chunk_words`` cuts the texts into runs of so many words
    first. The special tokens are those that the tokenizer puts around a text, and BOS wherever it stands.
    """
    encode = _encode_fast if getattr(tokenizer, "is_fast", False) else _encode_slow
    for group in _together(texts if chunk_words is None else _by_words(texts, chunk_words)):
        for ids, special, share in encode(group, tokenizer, max_length):
            begin = tokenizer.bos_token_id
            marks = zip(ids, special, strict=True)
            chunk = Chunk(ids, [SPECIAL if mark or token == begin else MEASURED for token, mark in marks], share)
            if chunk.kept:
                yield chunk


def limited(sequences: Iterable[Chunk], max_tokens: int | None) -> Iterator[Chunk]:
    """The first sequences, up to ``max_tokens`` kept tokens: the last one is read whole and kept in part."""
    left = max_tokens
    for chunk in sequences:
        if left is not None and chunk.kept >= left:
            codes = list(chunk.codes)
            for position, code in enumerate(codes):
                if code == MEASURED:
                    codes[position] = MEASURED if left > 0 else OVER_LIMIT
                    left -= 1
            yield Chunk(chunk.ids, codes, chunk.bytes)
            return
        if left is not None:
            left -= chunk.kept
        yield chunk


def _by_words(texts: Iterable[Text], chunk_words: int) -> Iterator[Text]:
    """Runs of ``chunk_words`` words, the last of each text shorter; the pieces of one text are joined."""
    words: list[str] = []
    carried = 0.0
    for text in texts:
        if text.begins and words:
            yield Text(" ".join(words), carried)
            words, carried = [], 0.0
        words += text.content.split()
        carried += text.bytes
        runs = len(words) // chunk_words
        for run in range(runs):
            yield Text(" ".join(words[run * chunk_words : (run + 1) * chunk_words]), carried // runs)
        if runs:
            words, carried = words[runs * chunk_words :], 0.0
    if words:
        yield Text(" ".join(words), carried)


def _together(texts: Iterable[Text]) -> Iterator[list[Text]]:
    group: list[Text] = []
    size = 0
    for text in texts:
        if text.content.strip():
            group.append(text)
            size += len(text.content)
        if size >= TOGETHER:
            yield group
            group, size = [], 0
    if group:
        yield group


Encoded = Iterator[tuple[list[int], list[int], float]]


def _encode_fast(group: list[Text], tokenizer: Any, max_length: int) -> Encoded:
    encoded = tokenizer(
        [text.content for text in group],
        truncation=True,
        max_length=max_length,
        return_overflowing_tokens=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    origin = encoded["overflow_to_sample_mapping"]
    sequences = [0] * len(group)
    for index in origin:
        sequences[index] += 1
    for ids, special, index in zip(encoded["input_ids"], encoded["special_tokens_mask"], origin, strict=True):
        yield ids, special, group[index].bytes / sequences[index]


def _encode_slow(group: list[Text], tokenizer: Any, max_length: int) -> Encoded:
    """The same for a tokenizer in Python, which cuts nothing by itself."""
    length = max_length - tokenizer.num_special_tokens_to_add(pair=False)
    for text in group:
        tokens = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text.content))
        sequences = -(-len(tokens) // length)
        for start in range(0, len(tokens), length):
            piece = tokens[start : start + length]
            special = tokenizer.get_special_tokens_mask(piece, already_has_special_tokens=False)
            yield tokenizer.build_inputs_with_special_tokens(piece), special, text.bytes / sequences
