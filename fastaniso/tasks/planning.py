"""Cut a measurement into tiles."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fastaniso.functional.neighborhood import check_k
from fastaniso.functional.pairwise import checked_options
from fastaniso.ops.dispatch import resolve
from fastaniso.pairing.tiles import rows_in_block
from fastaniso.sources import RemotePath, as_location, name_under, open_source
from fastaniso.tasks.manifest import Manifest


def plan_tasks(
    data: str | os.PathLike[str] | RemotePath,
    folder: str | os.PathLike[str],
    *,
    tensor: str | None = None,
    column: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    gram: bool = True,
    pairs: bool = False,
    bins: int = 2048,
    thresholds: Sequence[float] = (),
    uniformity_t: float = 2.0,
    neighbors: int | None = None,
    tiles: int | None = None,
    backend: str = "auto",
    device: str = "cpu",
) -> Manifest:
    """Write a manifest of the rows of all files of ``data`` into ``folder``; nothing is measured yet.

    Args:
        data: A file of vectors, or a folder of shards, as ``measure`` takes them: a path, or a URL that fsspec opens.
        folder: Where the manifest is written, and where the states of all runs meet.
        tensor: Name of the tensor, where a file holds several.
        column: Name of the column of vectors, where a table holds several.
        storage_options: Of fsspec for the file system of a URL, such as credentials. They are not in the manifest: each
            run is given its own.
        gram: Also the scatters, O(n d²).
        pairs: Also all pairs of rows, O(n² d), with ``bins``, ``thresholds`` and ``uniformity_t`` as for ``measure``.
        bins: Bins of the histogram.
        thresholds: Cosines above which the share of pairs is counted.
        uniformity_t: The t of the uniformity.
        neighbors: Also the so many nearest neighbours of each row.
        tiles: Cut the pair grid (or the rows, where there are no pairs) into about so many tiles, or more; by default
            into tiles of the size that keeps a kernel busy. A process that is killed loses one tile at most.
        backend: The kernel of all runs, so that their figures are of one kind.
        device: The kind of device that runs will use, for ``backend="auto"``.
    """
    visit = checked_options(bins, thresholds, uniformity_t)
    if neighbors is not None:
        check_k("neighbors", neighbors)
    if tiles is not None and (isinstance(tiles, bool) or not isinstance(tiles, int) or tiles < 1):
        raise ValueError(f"tiles: expected a positive int, got {tiles!r}")
    kernel = resolve(backend, torch.device(device))
    source = open_source(data, tensor=tensor, column=column, storage_options=storage_options)
    if any(part.path is None for part in source.parts):
        raise ValueError(f"data: {source.name} is no set of files; save it as files that every process can open")
    root = data_folder(data, storage_options)
    files = tuple(name_under(root, part.path) for part in source.parts if part.path is not None)
    most = rows_in_block(source.dim, source.dtype, kernel)
    manifest = Manifest(
        files=files,
        tensor=tensor,
        column=column,
        count=source.count,
        dim=source.dim,
        dtype=str(source.dtype).removeprefix("torch."),
        fingerprint=source.fingerprint,
        block_rows=min(most, _rows_for(tiles, source.count, triangle=pairs or neighbors is not None)),
        gram=gram,
        pairs=visit if pairs else None,
        neighbors=neighbors,
        backend=kernel,
    )
    manifest.write(Path(folder))
    return Manifest.read(Path(folder))


def data_folder(
    data: str | os.PathLike[str] | RemotePath, storage_options: Mapping[str, Any] | None = None
) -> Path | RemotePath:
    """The folder that a manifest's names of files are under: the data's own, or that of the file."""
    path = as_location(data, storage_options)
    return path if path.is_dir() else path.parent


def _rows_for(tiles: int | None, count: int, *, triangle: bool) -> int:
    """Rows of a block such that blocks, or the pairs of them, are about so many."""
    if tiles is None or not count:
        return max(count, 1)
    # b(b+1)/2 ≥ tiles
    blocks = math.ceil((math.sqrt(8 * tiles + 1) - 1) / 2) if triangle else tiles
    return math.ceil(count / blocks)
