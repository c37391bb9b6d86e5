"""Fold the states of tiles into the result of the whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastaniso.pairing.tiles import written
from fastaniso.scanning.measured import MeasureResult
from fastaniso.scanning.measuring import measured
from fastaniso.state import Gram, Moments, Neighbors, Pairs, State
from fastaniso.tasks.manifest import Manifest, Tile
from fastaniso.tasks.store import Store


class Incomplete(ValueError):
    """Tiles are missing: ``missing`` of ``total``."""

    def __init__(self, folder: Path, missing: tuple[Tile, ...], total: int) -> None:
        """Of the manifest in ``folder``."""
        first = ", ".join(tile.files[0] for tile in missing[:8]) + (" …" if len(missing) > 8 else "")
        super().__init__(
            f"{folder}: {len(missing):,} of {total:,} tiles are missing ({first}); do them with fastaniso run, or fold "
            "what is there with partial=True (--partial)"
        )
        self.missing = missing
        self.total = total


@dataclass(frozen=True)
class Folded:
    """The result of the tiles that are there, and which are ``missing`` of ``total``."""

    result: MeasureResult
    missing: tuple[Tile, ...]
    total: int


def fold(folder: str | os.PathLike[str], *, partial: bool = False, invalid: str = "raise") -> Folded:
    """What ``measure`` gives of the rows of the manifest in ``folder``, from the states that its runs left.

    States are merged in the order of the tiles: the same bits whatever processes made them, in whatever order.
    ``partial=True`` folds what is there where tiles are missing; then a statistic is of the rows, and of the pairs of
    rows, of those tiles. ``invalid`` as for ``measure``.

    Raises:
        Incomplete: Tiles are missing and not ``partial``.
        CorruptStateError: A file of a state is damaged.
        StateMismatchError: A file holds a state of something else: other rows, other options.
        ManifestError: There is no manifest, or a damaged one.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    store = Store(folder, manifest)
    tiles = manifest.tiles
    missing = tuple(tile for tile in tiles if not store.has(tile))
    if missing and not partial:
        raise Incomplete(folder, missing, len(tiles))
    there = [tile for tile in tiles if tile not in set(missing)]
    states: dict[str, Any] = {
        "vectors": _sum(store, there, Gram.empty(manifest.dim) if manifest.gram else Moments.empty(manifest.dim))
    }
    if manifest.pairs is not None:
        states["pairs"] = _sum(store, there, Pairs.empty(manifest.dim, **manifest.pairs))
    if manifest.neighbors is not None:
        states["neighbors"] = _lists(store, there, manifest)
    result = measured(
        states,
        names=manifest.files,
        count=manifest.count,
        dtype=manifest.torch_dtype,
        device="",
        invalid=invalid,
    )
    return Folded(result, missing, len(tiles))


def _sum(store: Store, tiles: list[Tile], state: Any) -> State:
    stage = "pairs" if isinstance(state, Pairs) else "vectors"
    for tile in tiles:
        if tile.stage == stage:
            (part,) = store.load(tile)
            state = state.merge(part)
    assert isinstance(state, State)
    return state


def _lists(store: Store, tiles: list[Tile], manifest: Manifest) -> Neighbors:
    assert manifest.neighbors is not None
    dtype = torch.float64 if manifest.dtype == "float64" else torch.float32
    state = Neighbors.empty(manifest.dim, manifest.neighbors, 0, manifest.count, dtype=dtype)
    for tile in tiles:
        if tile.stage == "neighbors":
            parts = [part for part in store.load(tile) if isinstance(part, Neighbors)]
            state = written(state, parts, in_place=True)
    return state
