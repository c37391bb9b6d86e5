"""Do one share of the tiles of a manifest: on any machine that sees the files, in any order, as often as one likes."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from fastaniso.ops import dispatch as ops
from fastaniso.progress import Meter, Report, reporter
from fastaniso.rows import Rows, as_rows
from fastaniso.sources import RemotePath, as_location
from fastaniso.state import State
from fastaniso.tasks.manifest import Manifest, Tile
from fastaniso.tasks.store import Store


def run_task(
    folder: str | os.PathLike[str],
    data: str | os.PathLike[str] | RemotePath,
    *,
    task: tuple[int, int] = (0, 1),
    device: torch.device | str = "cpu",
    progress: Report | bool | None = None,
) -> int:
    """Do what is not done yet of share i of N of the tiles of the manifest in ``folder``; how many tiles were done now.

    Each tile's state is written whole as soon as it is there, so that a process that is killed loses one tile at most,
    and whoever comes next, with any N, does what is left. Shares of one N are disjoint; two processes that do one tile
    write the same bits.

    Args:
        folder: That of the manifest.
        data: The folder of the files that the manifest names: a path, or a URL that fsspec opens.
        task: (i, N), 0 ≤ i < N: such as the index of an array job and its size.
        device: Where tiles are measured.
        progress: True for a bar on stderr, or a function that is given a ``Progress`` after each tile.

    Raises:
        ManifestError: The manifest is damaged, or of other rows than those at ``data``.
    """
    share, shares = task
    if not 0 <= share < shares:
        raise ValueError(f"task: expected (i, N) with 0 ≤ i < N, got {task}")
    folder, where = Path(folder), torch.device(device)
    manifest = Manifest.read(folder)
    source = manifest.open(as_location(data))
    if ops.resolve(manifest.backend, where) != manifest.backend:
        raise ValueError(f"device: the manifest is of the {manifest.backend} kernel, which does not run on {where}")
    store = Store(folder, manifest)

    # A row of tiles shares its first block; the last other block is the next tile's first, or nothing.
    @lru_cache(maxsize=2)
    def block(number: int) -> Rows:
        return as_rows(source.rows(*manifest.rows_of(number)).to(where))

    every = manifest.tiles
    mine = every[len(every) * share // shares : len(every) * (share + 1) // shares]
    left = [tile for tile in mine if not store.has(tile)]
    with reporter(progress) as report:
        meter = Meter(report, "tiles", "tiles", total=len(mine), done=len(mine) - len(left))
        for tile in left:
            store.save(tile, _measure(tile, manifest, block))
            meter.step(1)
    return len(left)


def _measure(tile: Tile, manifest: Manifest, block: Callable[[int], Rows]) -> tuple[State, ...]:
    rows, start = block(tile.row), manifest.rows_of(tile.row)[0]
    if tile.stage == "vectors":
        one = ops.gram if manifest.gram else ops.moments
        return (one(rows, backend=manifest.backend, start=start, source=manifest.name).to("cpu"),)
    alone = tile.row == tile.other
    other = None if alone else block(tile.other)
    named: dict[str, Any] = {
        **{"backend": manifest.backend, "start": start, "source": manifest.name},
        **{"other_start": 0 if alone else manifest.rows_of(tile.other)[0], "other_source": manifest.name},
    }
    found: tuple[State, ...]
    if tile.stage == "pairs":
        assert manifest.pairs is not None
        found = (ops.pairs(rows, other, **manifest.pairs, **named),)
    else:
        assert manifest.neighbors is not None
        k = manifest.neighbors
        found = (
            (ops.neighbors(rows, None, k=k, **named),)
            if other is None
            else ops.mutual_neighbors(rows, other, k=k, **named)
        )
    return tuple(state.to("cpu") for state in found)
