"""A measurement by the ranks of one job: each does its share of the tiles, and the folder is where they meet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from fastaniso.distributed.exchange import agreed
from fastaniso.distributed.starting import joined, own_device
from fastaniso.progress import Report
from fastaniso.scanning.measured import MeasureResult
from fastaniso.tasks.folding import fold
from fastaniso.tasks.manifest import Manifest
from fastaniso.tasks.planning import data_folder, plan_tasks
from fastaniso.tasks.running import run_task


def measure_on_ranks(
    data: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    invalid: str = "raise",
    progress: Report | bool | None = None,
    seconds: float = 300.0,
    **options: Any,
) -> MeasureResult:
    """``measure`` by all ranks that torchrun started, every rank with its own device; the same result on each.

    Args:
        data: A file of vectors, or a folder of shards, that all ranks see: a path, or a URL that fsspec opens.
        folder: Where the manifest and the states of tiles are kept; all ranks see it. A job that is killed goes on from
            there, also with another number of ranks.
        storage_options: Of fsspec for the file system of a URL, such as credentials; written nowhere.
        device: "cpu", or "cuda" for the GPU of the rank's number on its machine.
        invalid: As for ``measure``.
        progress: Told on the first rank.
        seconds: After so many, ranks that have not started are named in an error.
        options: As for ``plan_tasks``.
    """
    device = own_device(str(device)) or device
    with joined("cpu", seconds=seconds):
        rank, size = dist.get_rank(), dist.get_world_size()

        def planned() -> None:
            if rank == 0:
                plan_tasks(data, folder, storage_options=storage_options, device=str(device), **options)

        agreed(planned, None)
        agreed(lambda: Manifest.read(folder), None)
        report = progress if rank == 0 else None
        where = agreed(lambda: data_folder(data, storage_options), None)
        agreed(lambda: run_task(folder, where, task=(rank, size), device=device, progress=report), None)
        # All tiles are there once all have agreed.
        return fold(folder, invalid=invalid).result
