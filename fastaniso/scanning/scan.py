"""Scan a text model: every site's statistics over real text, in one pass and without keeping a hidden state."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from fastaniso.models import Anatomy, find_stacks, forward_arguments, load_model, tapped
from fastaniso.models.inputs import feeds_decoder, position_limit, takes_attention_mask, vocabulary
from fastaniso.planning.plan import plan
from fastaniso.progress import Meter, Report, reporter
from fastaniso.scanning.provenance import model_provenance, versions
from fastaniso.scanning.result import ScanResult, SiteResult, TokenCounts
from fastaniso.scanning.site import SiteAccumulator
from fastaniso.sources import Batch, Texts, as_texts, batches, chunks
from fastaniso.sources.chunks import limited

DEFAULT_LENGTH = 128
"""Tokens a sequence where texts are cut by tokens."""

LONGEST_DEFAULT = 512
"""Tokens a sequence at most where texts are cut by words and the model does not set its own limit."""

PROBE_TOKENS = 16
"""Tokens of the pass that is watched to find the blocks: enough to see the flow, too few to cost anything."""


def scan(
    model: str | os.PathLike[str] | nn.Module,
    data: str | os.PathLike[str] | Iterable[Any] | Texts,
    *,
    tokenizer: Any = None,
    field: str = "text",
    max_length: int | None = None,
    chunk_words: int | None = None,
    batch_size: int = 32,
    max_tokens: int | None = None,
    gram: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
) -> ScanResult:
    """Describe the hidden states of a text model at every site, exact over all ordered pairs of kept tokens.

    Sites are ``embedding`` (what the first block takes), ``block.i``, and around a final norm ``pre_final_norm`` and
    ``post_final_norm``; in an encoder–decoder with ``encoder.`` and ``decoder.`` before them. Padding and special
    tokens are never measured. Memory is that of one batch plus O(d²) a site (O(d) with ``gram=False``).

    Args:
        model: A folder, a hub id, or a module with its ``tokenizer``.
        data: A ``pathlib.Path`` or several (plain text, or ``.jsonl`` with ``field``), or an iterable of texts.
        tokenizer: The tokenizer of a model given as a module.
        field: The field of a ``.jsonl`` record that holds its text.
        max_length: Tokens a sequence, special tokens included: by default 128, and with ``chunk_words`` as many as the
            model takes (at most 512). Longer texts go on in the next sequence.
        chunk_words: Cut texts into runs of so many words first.
        batch_size: Sequences a forward pass. The figures do not depend on it beyond rounding.
        max_tokens: Stop after so many kept tokens.
        gram: Also the std of the cosine and the spectral scores.
        device: Where a model given by name runs: by default a GPU where there is one.
        dtype: Dtype of a model given by name: by default float32; "auto" for that of the checkpoint.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" if a state is zero or holds NaN or Inf, "omit" to leave it out and count it.
        memory_limit: ``MemoryError`` before the scan if the states of all sites take more.
        progress: True for a bar on stderr, or a function that is given a ``Progress`` after each batch.

    Raises:
        ModelNotFoundError: There is no such model.
        InvalidRowsError: A hidden state cannot be normalised and ``invalid="raise"``.
    """
    _check_counts(max_length=max_length, chunk_words=chunk_words, batch_size=batch_size, max_tokens=max_tokens)
    texts = as_texts(data, field=field)
    name, network, tokenizer = _model_and_tokenizer(model, tokenizer, device, dtype)
    length = _sequence_length(network, tokenizer, max_length, chunk_words)
    notes: list[str] = []
    sequences = limited(chunks(texts, tokenizer, max_length=length, chunk_words=chunk_words), max_tokens)
    stream = batches(sequences, batch_size=batch_size, pad_id=_pad_id(network, tokenizer, notes))
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), reporter(progress) as report:
            meter = Meter(report, "measuring", "tokens", total=max_tokens, total_bytes=texts.size)
            counts = _Counts()
            first, stream = _peek(stream, texts)
            _check_ids(first, network)
            anatomy = _anatomy(network, first)
            _check_memory(anatomy, first, gram=gram, backend=backend, memory_limit=memory_limit, network=network)
            reader = _Reader(anatomy, texts.identity, gram=gram, backend=backend, invalid=invalid)
            with tapped(network, anatomy.stacks, reader.receive):
                for batch in stream:
                    _check_ids(batch, network)
                    on_device = batch.to(_device(network))
                    reader.begin(on_device)
                    network(**forward_arguments(network, on_device.ids, on_device.attention))
                    counts.add(batch)
                    meter.step(batch.kept, batch.bytes)
    finally:
        network.train(training)
    tokens = counts.result(max_tokens)
    notes += _notes(network, anatomy, tokens)
    sites = reader.results(tokens.sequences)
    notes += dict.fromkeys(note for site in sites for note in site.description.notes)
    return ScanResult(
        model=name,
        data=texts.name,
        tokens=tokens,
        sites=sites,
        notes=tuple(notes),
        seconds=meter.seconds,
        provenance={
            **model_provenance(network, tokenizer),
            "max_length": length,
            "chunk_words": chunk_words,
            "batch_size": batch_size,
            "max_tokens": max_tokens,
            "mask": "attention mask without special tokens and BOS",
            "versions": versions(),
        },
        states=reader.states(),
    )


class _Reader:
    """Reduces each hidden state as it passes: the model's hooks call ``receive``."""

    def __init__(self, anatomy: Anatomy, source: str | None, *, gram: bool, backend: str, invalid: str) -> None:
        self._anatomy = anatomy
        self._source = source
        self._sites = {
            site: SiteAccumulator(gram=gram, backend=backend, invalid=invalid)
            for site in anatomy.sites
            if site not in anatomy.same_as
        }

    def begin(self, batch: Batch) -> None:
        self._keep = batch.keep
        count, length = batch.keep.shape
        self._sequences = torch.arange(count, device=batch.keep.device).repeat_interleave(length)

    def receive(self, site: str, hidden: Tensor) -> None:
        # A model spread over devices has states on several: the small mask follows the state, never the reverse.
        keep, sequences = self._keep.to(hidden.device), self._sequences.to(hidden.device)
        self._sites[site].update(hidden, keep, sequences, source=self._source)

    def results(self, sequences: int) -> tuple[SiteResult, ...]:
        described = {site: accumulator.describe(sequences) for site, accumulator in self._sites.items()}
        same_as = self._anatomy.same_as
        return tuple(
            SiteResult(site, same_as.get(site), described[same_as.get(site, site)]) for site in self._anatomy.sites
        )

    def states(self) -> dict[str, Any]:
        return {site: accumulator.state for site, accumulator in self._sites.items()}


class _Counts:
    def __init__(self) -> None:
        self.kept = self.special = self.padding = self.over_limit = self.sequences = self.batches = 0

    def add(self, batch: Batch) -> None:
        self.kept += batch.kept
        self.special += batch.special
        self.padding += batch.padding
        self.over_limit += batch.over_limit
        self.sequences += len(batch.ids)
        self.batches += 1

    def result(self, max_tokens: int | None) -> TokenCounts:
        return TokenCounts(**vars(self), limited=max_tokens is not None and self.kept >= max_tokens)


def _check_counts(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name}: expected a positive int, got {value!r}")


def _model_and_tokenizer(
    model: str | os.PathLike[str] | nn.Module, tokenizer: Any, device: Any, dtype: Any
) -> tuple[str, nn.Module, Any]:
    if not isinstance(model, nn.Module):
        network, own = load_model(model, device=device, dtype=dtype)
        return os.fspath(model), network, own if tokenizer is None else tokenizer
    if tokenizer is None:
        raise ValueError("tokenizer: a model given as a module needs its tokenizer, such as AutoTokenizer's")
    if device is not None or dtype is not None:
        raise ValueError("device, dtype: a model given as a module is used as it is; convert it with model.to(...)")
    return getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__, model, tokenizer


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


def _check_ids(batch: Batch, network: nn.Module) -> None:
    """On a GPU an id without an embedding would end the process's use of the GPU: told here instead."""
    known, largest = vocabulary(network), int(batch.ids.max())
    if known is not None and largest >= known:
        raise ValueError(
            f"tokenizer: gives id {largest}, and the model has embeddings for {known} ids; use the model's own"
        )


def _peek(stream: Iterator[Batch], texts: Texts) -> tuple[Batch, Iterator[Batch]]:
    first = next(stream, None)
    if first is None:
        raise ValueError(f"data: no tokens in {texts.name}: empty, or nothing but special tokens")
    return first, chain([first], stream)


def _anatomy(network: nn.Module, batch: Batch) -> Anatomy:
    device = _device(network)
    ids, attention = (tensor[:1, :PROBE_TOKENS].to(device) for tensor in (batch.ids, batch.attention))
    return find_stacks(network, lambda: network(**forward_arguments(network, ids, attention)), tokens=ids.shape)


def _check_memory(
    anatomy: Anatomy, batch: Batch, *, gram: bool, backend: str, memory_limit: int | str | None, network: nn.Module
) -> None:
    if memory_limit is None:
        return
    sites = len(anatomy.sites) - len(anatomy.same_as)
    widest = max(stack.dim for stack in anatomy.stacks)
    one = plan(batch.ids.numel(), widest, gram=gram, backend=backend, device=_device(network), accumulate=True)
    # Every site keeps its state; working memory is one site's at a time.
    replace(one, state_bytes=sites * one.state_bytes).check(memory_limit)


def _device(network: nn.Module) -> torch.device:
    """Where the ids go: the device of the embedding, which a model spread over devices reads first."""
    return next(network.parameters()).device


def _notes(network: nn.Module, anatomy: Anatomy, tokens: TokenCounts) -> list[str]:
    notes = [f"left out: {sentence}" for sentence in anatomy.left_out]
    if feeds_decoder(network):
        notes.append("the decoder was given the same ids as the encoder, not shifted")
    if tokens.limited:
        notes.append("these are the first tokens of the data: a beginning may keep to fewer topics than the whole")
    return notes
