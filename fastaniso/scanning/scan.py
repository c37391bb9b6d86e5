"""Scan a model: every site's statistics over real data, in one pass and without keeping a hidden state."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from fastaniso.distributed.exchange import agreed
from fastaniso.models import Anatomy, find_stacks, load_model, tapped
from fastaniso.models.masks import MaskError
from fastaniso.planning.plan import plan
from fastaniso.progress import Meter, Report, reporter
from fastaniso.scanning.attention.positions import BatchPositions
from fastaniso.scanning.attention.reader import AttentionReader
from fastaniso.scanning.modalities import Modality, ModelBatch, check_counts, open_modality
from fastaniso.scanning.outcome import outcome
from fastaniso.scanning.provenance import model_provenance
from fastaniso.scanning.reader import Reader
from fastaniso.scanning.result import ScanResult
from fastaniso.scanning.resuming import ScanCheckpoint, fingerprint_of_data, fingerprint_of_weights
from fastaniso.scanning.stopped import ScanInterrupted, ScanInvalidRowsError, ScanStoppedError
from fastaniso.sources import Data, as_data
from fastaniso.statistics.host import InvalidRowsError


def scan(
    model: str | os.PathLike[str] | nn.Module,
    data: str | os.PathLike[str] | Iterable[Any] | Data,
    *,
    tokenizer: Any = None,
    processor: Any = None,
    field: str = "text",
    max_length: int | None = None,
    chunk_words: int | None = None,
    max_seconds: float | None = None,
    batch_size: int | None = None,
    max_tokens: int | None = None,
    max_items: int | None = None,
    gram: bool = True,
    attention: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
    group: Any = None,
    resume: str | os.PathLike[str] | None = None,
    progress: Report | bool | None = None,
) -> ScanResult:
    """Describe the hidden states of a model at every site, exact over all ordered pairs of kept positions.

    Sites are ``embedding`` (what the first block takes), ``block.i``, and around a final norm ``pre_final_norm`` and
    ``post_final_norm``; in an encoder–decoder with ``encoder.`` and ``decoder.`` before them. Padding, special tokens,
    class and register tokens and padded frames are never measured. Memory is that of one batch plus O(d²) a site (O(d)
    with ``gram=False``). Of feature maps (convolutional networks) every position is a row of as many numbers as there
    are channels, and a block is a stage.

    Args:
        model: A folder, a hub id, or a module with its ``tokenizer`` or ``processor``.
        data: A ``pathlib.Path`` or several (texts, ``.jsonl`` and ``.parquet``; folders of texts, images or sounds; a
            saved data set), a data set, or an iterable of texts, of images (Pillow's, or uint8 arrays), of sounds
            (samples, rate), or of batches: dicts of tensors for the model's ``forward``, where ``mask`` (items,
            positions) says what is measured, else what they hold does (``attention_mask``, …).
        tokenizer: The tokenizer of a model given as a module, or the folder or hub id that has it.
        processor: The image processor or feature extractor of a model given as a module, or the folder or hub id.
        field: The field of a ``.jsonl`` record, or the column of a table, that holds the data.
        max_length: Tokens a sequence, special tokens included: by default 128, and with ``chunk_words`` as many as the
            model takes (at most 512). Longer texts go on in the next sequence.
        chunk_words: Cut texts into runs of so many words first.
        max_seconds: Seconds of a clip: by default 10, or the fixed length that the model reads. Longer sounds go on in
            the next clip.
        batch_size: Sequences or images (by default 32) or clips (8) a forward pass. The figures do not depend on it
            beyond rounding.
        max_tokens: Stop after so many kept tokens of texts.
        max_items: Stop after so many images or clips.
        gram: Also the std of the cosine and the spectral scores.
        attention: Also queries, keys and the softmax of every head, at the positions that are measured and over all
            keys that the model attends to: ``result.attention``. No map of T×T is kept.
        device: Where a model given by name runs: by default a GPU where there is one.
        dtype: Dtype of a model given by name: by default float32; "auto" for that of the checkpoint.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" if a state is zero or holds NaN or Inf, "omit" to leave it out and count it.
        memory_limit: ``MemoryError`` before the scan if the states of all sites take more.
        group: A process group of torch.distributed (``torch.distributed.group.WORLD`` for all): each rank runs its
            model on every so many-th batch, and all get the result of all, which one process would give up to
            rounding. Not with ``attention``.
        resume: A folder to keep the states in every few seconds; a scan of the same model and data with the same
            options that was killed goes on from there. Of files only, by one process, without ``attention``.
        progress: True for a bar on stderr, or a function that is given a ``Progress`` after each batch.

    Raises:
        ModelNotFoundError: There is no such model.
        InvalidRowsError: A hidden state cannot be normalised and ``invalid="raise"``. It is a ``ScanInvalidRowsError``,
            whose ``result`` leaves such states out.
        ScanStoppedError: An error after the first batch; its ``result`` holds what was measured until then. So does
            that of ``ScanInterrupted``, a ``KeyboardInterrupt``.
    """
    check_counts(max_length=max_length, chunk_words=chunk_words, batch_size=batch_size)
    check_counts(max_tokens=max_tokens, max_items=max_items)
    if attention and group is not None:
        raise ValueError("attention: attentions are not merged over ranks; scan them by one process")
    if resume is not None and (attention or group is not None):
        raise ValueError("resume: a scan with attention, or by several ranks, is not kept while it is under way")
    source = as_data(data, field=field)
    name, network = _model(model, device, dtype)
    modality = open_modality(
        source,
        network,
        None if isinstance(model, nn.Module) else os.fspath(model),
        tokenizer=tokenizer,
        processor=processor,
        max_length=max_length,
        chunk_words=chunk_words,
        max_seconds=max_seconds,
        batch_size=batch_size,
        max_tokens=max_tokens,
        max_items=max_items,
    )
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), reporter(progress) as report:
            meter = Meter(report, "measuring", modality.unit, total=modality.limit, total_bytes=modality.size)
            first, stream = _peek(modality)
            anatomy = _anatomy(network, modality, first)
            _check_memory(anatomy, first, gram=gram, backend=backend, memory_limit=memory_limit, network=network)
            rank, size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
            # What a rank has read is named after it, so that no two seem to have read the same rows.
            identity = modality.identity
            if group is not None and identity is not None:
                identity = f"{identity} #{rank}"
            reader = Reader(anatomy, identity, gram=gram, backend=backend, invalid=invalid)
            heads = AttentionReader(network, anatomy.stacks, backend=backend, invalid=invalid) if attention else None

            checkpoint = None
            if resume is not None:
                told = {
                    "model": {**model_provenance(network), "weights": fingerprint_of_weights(network)},
                    "data": [modality.name, fingerprint_of_data(data)],
                    "options": {**modality.provenance, "gram": gram, "invalid": invalid, "backend": backend},
                    "limits": [max_tokens, max_items, batch_size],
                }
                checkpoint = ScanCheckpoint(Path(resume), told, reader, _device(network))
                if reader.kept:
                    meter.step(reader.kept)

            def read() -> None:
                with tapped(network, anatomy.stacks, reader.receive), heads.attached() if heads else nullcontext():
                    for batch in islice(stream, rank + size * reader.batches, None, size):
                        on_device = batch.to(*_place(network, modality))
                        reader.begin(on_device)
                        if heads:
                            heads.begin(BatchPositions(on_device, anatomy.stacks))
                        network(**on_device.arguments)
                        if heads:
                            heads.check()
                        meter.step(reader.end(), batch.bytes * size)
                        if checkpoint:
                            checkpoint.keep()

            try:
                if group is None:
                    with checkpoint.kept() if checkpoint else nullcontext():
                        read()
                else:
                    agreed(read, group)
                    reader.gather(_device(network), group)
            except (Exception, KeyboardInterrupt) as error:
                if not reader.batches:
                    raise
                kept = outcome(name, network, modality, anatomy, reader, heads, meter.seconds, complete=False)
                if isinstance(error, KeyboardInterrupt):
                    raise ScanInterrupted(kept) from error
                raise ScanStoppedError(f"{error} (in batch {reader.batches}, counted from 0)", kept) from error
    finally:
        network.train(training)
    end = (name, network, modality, anatomy, reader, heads, meter.seconds)
    try:
        return outcome(*end, complete=True)
    except InvalidRowsError as error:
        raise ScanInvalidRowsError(str(error), outcome(*end, complete=True, partial=True)) from error


def _model(model: str | os.PathLike[str] | nn.Module, device: Any, dtype: Any) -> tuple[str, nn.Module]:
    if not isinstance(model, nn.Module):
        return os.fspath(model), load_model(model, device=device, dtype=dtype)
    if device is not None or dtype is not None:
        raise ValueError("device, dtype: a model given as a module is used as it is; convert it with model.to(...)")
    return getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__, model


def _peek(modality: Modality) -> tuple[ModelBatch, Iterator[ModelBatch]]:
    stream = modality.batches()
    first = next(stream, None)
    if first is None:
        raise modality.nothing()
    return first, chain([first], stream)


def _anatomy(network: nn.Module, modality: Modality, batch: ModelBatch) -> Anatomy:
    """The stacks whose positions have a mask."""
    one = modality.first(batch).to(*_place(network, modality))
    anatomy = find_stacks(network, lambda: network(**one.arguments))
    unfit = {}
    for stack in anatomy.stacks:
        try:
            one.mask(stack, (stack.shape[0], stack.positions))
        except MaskError as reason:
            unfit[stack] = str(reason)
    if len(unfit) == len(anatomy.stacks):
        said = "; ".join(f"{stack.path} {reason}" for stack, reason in unfit.items())
        raise ValueError(
            f"model: found no stack of blocks in {type(network).__name__} that a mask fits: {said}; give "
            "batches with a mask of its positions"
        )
    return anatomy.without(unfit)


def _check_memory(
    anatomy: Anatomy, batch: ModelBatch, *, gram: bool, backend: str, memory_limit: int | str | None, network: nn.Module
) -> None:
    if memory_limit is None:
        return
    sites = len(anatomy.sites) - len(anatomy.same_as)
    widest = max(stack.dim for stack in anatomy.stacks)
    ids = batch.arguments.get("input_ids")
    rows = ids.numel() if ids is not None else batch.items * max(stack.positions for stack in anatomy.stacks)
    one = plan(rows, widest, gram=gram, backend=backend, device=_device(network), accumulate=True)
    # Every site keeps its state; working memory is one site's at a time.
    replace(one, state_bytes=sites * one.state_bytes).check(memory_limit)


def _place(network: nn.Module, modality: Modality) -> tuple[torch.device, torch.dtype | None]:
    """Where a batch goes, and what its floating-point tensors become: the caller's own stay as they are."""
    return _device(network), next(network.parameters()).dtype if modality.follows_dtype else None


def _device(network: nn.Module) -> torch.device:
    """Where the ids go: the device of the embedding, which a model spread over devices reads first."""
    return next(network.parameters()).device
