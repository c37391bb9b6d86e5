"""Do one share of the tiles of a manifest: on any machine that sees the files, in any order, as often as one likes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest
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
    storage_options: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    progress: Report | bool | None = None,
) -> int:
    """Do what is not done yet of share i of N of the tiles of the manifest in ``folder``; how many tiles were done now.

    Each tile's state is written whole as soon as it is there, so that a process that is killed loses one tile at most,
    and whoever comes next, with any N, does what is left. Shares of one N are disjoint; two processes that do one tile
    write the same state.

    Args:
        folder: That of the manifest.
        data: The folder of the files that the manifest names: a path, or a URL that fsspec opens.
        task: (i, N), 0 ≤ i < N: such as the index of an array job and its size.
        storage_options: Of fsspec for the file system of a URL, such as credentials; written nowhere.
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
    source = manifest.open(as_location(data, storage_options))
    if ops.resolve(manifest.backend, where) != manifest.backend:
        raise ValueError(f"device: the manifest is of the {manifest.backend} kernel, which does not run on {where}")
    store = Store(folder, manifest)

    def block(number: int) -> Rows:
        return as_rows(source.rows(*manifest.rows_of(number)).to(where))

    every = manifest.tiles
    mine = every[len(every) * share // shares : len(every) * (share + 1) // shares]
    left = [tile for tile in mine if not store.has(tile)]
    with reporter(progress) as report, _Ahead(block) as ahead:
        meter = Meter(report, "tiles", "tiles", total=len(mine), done=len(mine) - len(left))
        for tile, following in zip_longest(left, left[1:]):
            ahead.need([each for each in (tile, following) if each is not None])
            store.save(tile, _measure(tile, manifest, ahead.block))
            meter.step(1)
    return len(left)


class _Ahead:
    """The blocks of the tile under way, and those of the next one, which are read meanwhile: mostly one more."""

    def __init__(self, read: Callable[[int], Rows]) -> None:
        self._read = read
        self._held: dict[int, Future[Rows]] = {}
        # One worker: a source is never asked by two threads.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fastaniso-read")

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def need(self, tiles: Sequence[Tile]) -> None:
        """Read the blocks of ``tiles`` that are not held, in their order, and let go of all others."""
        wanted = dict.fromkeys(number for tile in tiles for number in (tile.row, tile.other))
        self._held = {number: self._held.get(number) or self._worker.submit(self._read, number) for number in wanted}

    def block(self, number: int) -> Rows:
        return self._held[number].result()


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
