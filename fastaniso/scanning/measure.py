"""Measure stored vectors, block by block from where they are stored."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from fastaniso.accumulator import SCATTERS, scatters_for
from fastaniso.functional.neighborhood import check_k
from fastaniso.functional.pairwise import checked_options
from fastaniso.ops.dispatch import resolve
from fastaniso.pairing.tiles import rows_in_block
from fastaniso.progress import Report, reporter
from fastaniso.scanning.checkpoint import Checkpoint
from fastaniso.scanning.measured import MeasureResult
from fastaniso.scanning.measuring import measured
from fastaniso.scanning.memory import check_memory
from fastaniso.scanning.passes import Passes
from fastaniso.sources import open_source
from fastaniso.statistics.catalogue import asked_for, merged_needs
from fastaniso.statistics.host import check_invalid_option
from fastaniso.statistics.metric import AGAIN

BLOCK_BYTES = 64 << 20
"""Bytes read at once in a linear pass, between two signs of progress."""


def measure(
    path: Any,
    *,
    tensor: str | None = None,
    column: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    metrics: Any = None,
    gram: bool = True,
    pairs: bool = False,
    bins: int = 2048,
    thresholds: Sequence[float] = (),
    uniformity_t: float = 2.0,
    neighbors: int | None = None,
    device: torch.device | str = "cpu",
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
    block_rows: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: Report | bool | None = None,
) -> MeasureResult:
    """Describe stored vectors, exact over the n(n−1) ordered pairs of the rows of all files together.

    Rows are read a block at a time, once for the description and O(n/block) times for ``pairs`` and for ``neighbors``,
    so they may be larger than memory: it holds one block (two for a tile of pairs, three and two in pinned memory with
    a GPU, and one more of files elsewhere, which is read meanwhile) and the states. No code ever runs from a file, and
    none is copied here. ``provenance["waiting"]`` tells how long rows were waited for.

    Args:
        path: ``.npy``, ``.safetensors``, ``.pt`` (``torch.save`` of a tensor or a dict of tensors), ``.parquet`` or
            ``.arrow``; a folder of shards of one kind, or of a Hugging Face data set; a ``datasets.Dataset``; a URL of
            a file or folder that fsspec opens, as ``open_source`` says; or several of these. ``[..., d]`` is read as
            rows of d numbers. A ``datasets.IterableDataset`` is read once: no pairs, no second passes, no ``resume``.
        tensor: Name of the tensor, where a file holds several.
        column: Name of the column of vectors, where a table holds several.
        storage_options: Of fsspec for the file system of a URL, such as credentials; written nowhere.
        metrics: Names of metrics for ``result.description.metrics``, as ``describe`` takes them; "all" are those of
            linear sums, scatters and second passes, which read the rows again, each for itself.
        gram: Also the std of the cosine and the spectral scores, O(n d²).
        pairs: Also histogram, quantiles, extrema, shape and uniformity of the cosines of all pairs, O(n² d).
        bins: Bins of the histogram.
        thresholds: Cosines above which the share of pairs is counted.
        uniformity_t: The t of the uniformity, above 0 and up to 20.
        neighbors: Also the so many nearest neighbours of each row, 1 to 128, O(n² d).
        device: Where blocks are measured.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" if a row is zero or holds NaN or Inf (with its index), "omit" to leave it out and count it.
        memory_limit: ``MemoryError`` before the first block if states and working memory take more.
        block_rows: Rows read at once; the last bits of sums depend on it.
        resume: A folder to keep the states in every few seconds and at the end; a measurement of the same rows with the
            same options that is there goes on where it stopped.
        progress: True for a bar on stderr, or a function that is given a ``Progress`` after each block or tile.

    Raises:
        CorruptFileError: A file is damaged, or holds what cannot be read without running code.
        InvalidRowsError: A row cannot be normalised and ``invalid="raise"``.
        MeasureInterrupted: A ``KeyboardInterrupt`` that carries what is done.
    """
    began = perf_counter()
    _check_rows(block_rows)
    visit = checked_options(bins, thresholds, uniformity_t)
    if neighbors is not None:
        check_k("neighbors", neighbors)
    check_invalid_option(invalid)
    asked = asked_for(metrics, {*SCATTERS, AGAIN}, who="measure")
    scatters = scatters_for(asked, gram)
    where = torch.device(device)
    kernel = resolve(backend, where)
    source = open_source(path, tensor=tensor, column=column, storage_options=storage_options)
    calls = merged_needs(asked).get(AGAIN, {}).get("calls", ())
    if source.is_stream:
        _check_stream(source.name, {"pairs": pairs, "neighbors": neighbors, "metrics": calls, "resume": resume})
    rows_at_once = block_rows or max(BLOCK_BYTES // (source.dim * source.dtype.itemsize), 1)
    rows_of_tile = block_rows or rows_in_block(source.dim, source.dtype, kernel)
    check_memory(
        memory_limit,
        source,
        gram=scatters,
        bins=bins if pairs else None,
        neighbors=neighbors,
        backend=kernel,
        device=where,
        block_rows=rows_at_once,
        tile_rows=rows_of_tile,
    )
    options = {"gram": scatters, "pairs": visit if pairs else None, "neighbors": neighbors, "backend": kernel}
    checkpoint = Checkpoint(
        None if resume is None else Path(resume),
        [part.name for part in source.parts],
        None if source.is_stream else source.fingerprint,
        {**options, "block_rows": [rows_at_once, rows_of_tile]},
    )
    states: dict[str, Any] = {}
    with reporter(progress) as report, checkpoint.kept():
        passes = Passes(source, checkpoint, where, kernel, report)
        states["vectors"] = passes.moments(gram=scatters, invalid=invalid, block_rows=rows_at_once)
        if pairs:
            states["pairs"] = passes.pairs(**visit, block_rows=rows_of_tile)
        if neighbors is not None:
            states["neighbors"] = passes.neighbors(k=neighbors, block_rows=rows_of_tile)
        again = passes.again(calls, block_rows=rows_at_once)
    return measured(
        states,
        names=[part.name for part in source.parts],
        count=source.count,
        dtype=source.dtype,
        device=str(device),
        invalid=invalid,
        asked=asked,
        again=again,
        seconds=perf_counter() - began,
        waiting=passes.waiting.seconds,
    )


def _check_stream(name: str, options: Mapping[str, Any]) -> None:
    """Refuse what reads rows again, or from where it stopped."""
    asked = [option for option, value in options.items() if value not in (None, False, ())]
    if asked:
        raise ValueError(
            f"{asked[0]}: {name} is a stream, whose rows come once and in order; save it first (to_parquet, or "
            f"save_to_disk of a Dataset) and measure the files, or leave out {', '.join(asked)}"
        )


def _check_rows(block_rows: int | None) -> None:
    if block_rows is None:
        return
    if isinstance(block_rows, bool) or not isinstance(block_rows, int) or block_rows < 1:
        raise ValueError(f"block_rows: expected a positive int, got {block_rows!r}")
