"""Scan a model: every site's statistics over real data, in one pass and without keeping a hidden state."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from fastaniso.distributed.exchange import RankError, agreed
from fastaniso.progress import Meter, Report, reporter
from fastaniso.scanning.alarm import Alarm
from fastaniso.scanning.dealing import Deal, Passed
from fastaniso.scanning.fingerprints import fingerprint_of_data, fingerprint_of_weights
from fastaniso.scanning.modalities import Modality, check_counts
from fastaniso.scanning.outcome import outcome
from fastaniso.scanning.provenance import model_provenance
from fastaniso.scanning.readers import Readers
from fastaniso.scanning.result import ScanResult
from fastaniso.scanning.resuming import ScanCheckpoint
from fastaniso.scanning.stopped import ScanInterrupted, ScanInvalidRowsError, ScanStoppedError
from fastaniso.scanning.subject import Subject, open_subject
from fastaniso.sources import Data, as_data
from fastaniso.statistics.host import InvalidRowsError

T = TypeVar("T")


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
            rounding. An error on one of them stops all.
        resume: A folder to keep the states in every few seconds, one that all ranks see; a scan of the same model and
            data with the same options that was killed goes on from there, to the same bits, and by another number of
            ranks to the same up to rounding. At the end the result is saved there in place of them. Of files only.
        progress: True for a bar on stderr (the first rank's), or a function that is given a ``Progress`` after each
            batch.

    Raises:
        ModelNotFoundError: There is no such model.
        InvalidRowsError: A hidden state cannot be normalised and ``invalid="raise"``. It is a ``ScanInvalidRowsError``,
            whose ``result`` leaves such states out.
        ScanStoppedError: An error after the first batch; its ``result`` holds what was measured until then, by ranks
            what the rank has measured. So does that of ``ScanInterrupted``, a ``KeyboardInterrupt``.
    """
    rank, size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
    alarm = None if group is None else Alarm(group)

    def opened() -> tuple[str, nn.Module, Modality]:
        check_counts(max_length=max_length, chunk_words=chunk_words, batch_size=batch_size)
        check_counts(max_tokens=max_tokens, max_items=max_items)
        return open_subject(
            model,
            as_data(data, field=field),
            device=device,
            dtype=dtype,
            tokenizer=tokenizer,
            processor=processor,
            max_length=max_length,
            chunk_words=chunk_words,
            max_seconds=max_seconds,
            batch_size=batch_size,
            max_tokens=max_tokens,
            max_items=max_items,
        )

    def looked_at() -> tuple[Subject, ScanCheckpoint | None]:
        subject = Subject.of(name, network, modality)
        subject.check_memory(memory_limit, gram=gram, backend=backend)
        if resume is None:
            return subject, None
        told = {
            "model": {
                **model_provenance(network),
                "device": subject.device.type,  # each rank has its own of a kind
                "weights": fingerprint_of_weights(network),
            },
            "data": [modality.name, fingerprint_of_data(data, results=Path(resume))],
            "options": {**modality.provenance, "gram": gram, "attention": attention, "invalid": invalid},
            "backend": backend,
            "limits": [max_tokens, max_items, batch_size],
        }
        checkpoint = ScanCheckpoint(Path(resume), told, rank, size)
        if rank == 0:
            checkpoint.begin()
        return subject, checkpoint

    def prepared() -> tuple[Readers, Deal]:
        deal = Deal(rank, size) if checkpoint is None else checkpoint.look()
        # What is read by several, or in several runs, has names that differ, so that nothing seems to be read twice.
        shared = deal.size > 1 or deal.before
        identity = modality.identity
        if identity is not None and shared:
            identity = f"{identity} #{len(deal.before) + 1}.{rank}"
        readers = Readers(subject, identity, gram=gram, attention=attention, backend=backend, invalid=invalid)
        if shared or checkpoint is not None:
            readers.learn()
        if checkpoint is not None:
            checkpoint.take_up(readers, subject.device)
        return readers, deal

    name, network, modality = _on_all(opened, group)
    draws = progress is not True or rank == 0
    with _evaluated(network), torch.no_grad(), reporter(progress if draws else None) as report:
        subject, checkpoint = _on_all(looked_at, group)
        readers, deal = _on_all(prepared, group)
        done = readers.hidden.batches
        meter = Meter(
            *(report, "measuring", modality.unit),
            total=modality.limit,
            total_bytes=modality.size,
            done=readers.hidden.kept,
        )
        passed, number = Passed(subject.stream), 0

        def read() -> None:
            nonlocal number
            try:
                with readers.attached():
                    for turn in deal.turns(passed, done):
                        number = turn.number
                        measured = readers.read(turn)
                        number += 1
                        meter.step(measured, turn.bytes)
                        if checkpoint:
                            checkpoint.keep()
                        if alarm:
                            alarm.check()
                if alarm:
                    alarm.wait()
            except BaseException as error:
                if alarm and not isinstance(error, RankError):
                    alarm.ring(error)
                raise

        try:
            with checkpoint.kept() if checkpoint else nullcontext():
                _on_all(read, group)
        except (Exception, KeyboardInterrupt) as error:
            if not readers.hidden.batches:
                raise
            if checkpoint and group is None:
                checkpoint.add_earlier_runs()
            kept = outcome(subject, readers, meter.seconds, complete=False, ranks=size)
            if isinstance(error, KeyboardInterrupt):
                raise ScanInterrupted(kept) from error
            where = "" if isinstance(error, RankError) else f" (in batch {number}, counted from 0)"
            raise ScanStoppedError(f"{error}{where}", kept) from error
        if checkpoint:
            _on_all(checkpoint.add_earlier_runs, group)
        if group is not None:
            readers.gather(group)
        passed.check_all_read(readers.hidden.batches, readers.hidden.items, group)
        readers.hidden.cover(modality.identity)

    def settle(result: ScanResult | None) -> None:
        if checkpoint and resume is not None and rank == 0:
            if result is not None:
                result.save(resume, pictures=False)
            checkpoint.remove()

    end = (subject, readers, meter.seconds)
    try:
        result = outcome(*end, complete=True)
    except InvalidRowsError as error:
        _on_all(partial(settle, None), group)
        raise ScanInvalidRowsError(str(error), outcome(*end, complete=True, partial=True)) from error
    _on_all(partial(settle, result), group)
    return result


def _on_all(call: Callable[[], T], group: Any) -> T:
    """``call()``; an exception on any rank of the group raises on all."""
    return call() if group is None else agreed(call, group)


@contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    """The network as it is in use, not in training; left as it was."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
