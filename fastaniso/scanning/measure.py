"""Measure stored vectors, block by block from memory-mapped files."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from fastaniso.accumulator import Accumulator
from fastaniso.scanning.progress import Meter, Report, reporter
from fastaniso.scanning.provenance import versions
from fastaniso.scanning.result import MeasureResult
from fastaniso.sources import open_vectors


def measure(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    tensor: str | None = None,
    gram: bool = True,
    device: torch.device | str = "cpu",
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
    block_rows: int | None = None,
    progress: Report | bool | None = None,
) -> MeasureResult:
    """Describe stored vectors, exact over the n(n−1) ordered pairs of the rows of all files together.

    The files are memory-mapped and read once, ``block_rows`` rows at a time (by default 64 MiB), so memory is that of
    the states. No code ever runs from a file.

    Args:
        path: ``.npy``, ``.safetensors`` or ``.pt`` (``torch.save`` of a tensor or a dict of tensors), or several;
            ``[..., d]`` is read as rows of d numbers.
        tensor: Name of the tensor, where a file holds several.
        gram: Also the std of the cosine and the spectral scores, O(n d²).
        device: Where blocks are measured.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" if a row is zero or holds NaN or Inf (with its index), "omit" to leave it out and count it.
        memory_limit: ``MemoryError`` before the first block if states and working memory take more.
        block_rows: Rows read at once.
        progress: True for a bar on stderr, or a function that is given a ``Progress`` after each block.

    Raises:
        CorruptFileError: A file is damaged, or holds what cannot be read without running code.
        InvalidRowsError: A row cannot be normalised and ``invalid="raise"``.
    """
    if block_rows is not None and block_rows < 1:
        raise ValueError(f"block_rows: expected a positive int, got {block_rows!r}")
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise ValueError("path: expected at least one file")
    files = [open_vectors(each, tensor=tensor) for each in paths]
    for file in files[1:]:
        if file.values.shape[1] != files[0].values.shape[1]:
            raise ValueError(
                f"path: {file.source} holds vectors of {file.values.shape[1]} numbers and {files[0].source} of "
                f"{files[0].values.shape[1]}; measure them one by one"
            )
    accumulator = Accumulator(gram=gram, backend=backend, invalid=invalid, memory_limit=memory_limit)
    with reporter(progress, "rows") as report:
        meter = Meter(report, total_bytes=sum(file.values.nbytes for file in files))
        for file in files:
            for start, block in file.blocks(block_rows):
                accumulator.update(block.to(device), source=file.source, start=start)
                meter.step(len(block), block.nbytes)
    return MeasureResult(
        data=tuple(file.source for file in files),
        description=accumulator.result(),
        seconds=meter.seconds,
        provenance={
            "dtypes": sorted({str(file.values.dtype).removeprefix("torch.") for file in files}),
            "device": str(device),
            "versions": versions(),
        },
        state=accumulator.state,
    )
