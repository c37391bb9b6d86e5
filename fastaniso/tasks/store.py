"""The states of tiles as files: written whole or not at all, and believed only if they are what the tile says."""

from __future__ import annotations

from pathlib import Path

import torch

from fastaniso.state import (
    CorruptStateError,
    Coverage,
    Gram,
    Moments,
    Neighbors,
    PairCoverage,
    Pairs,
    State,
    StateMismatchError,
    load_state,
    save_state,
)
from fastaniso.tasks.manifest import Manifest, Tile

_HEADER_BYTES = 1 << 20


class Store:
    """The folder ``tiles`` beside a manifest."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Of ``manifest``, which is in ``folder``."""
        self._folder = folder / "tiles"
        self._manifest = manifest

    def path(self, name: str) -> Path:
        """Where the state of that name is."""
        return self._folder / f"{name}.safetensors"

    def has(self, tile: Tile) -> bool:
        """Whether the tile was done; what is in its files is checked when they are folded."""
        return all(self.path(name).is_file() for name in tile.files)

    def save(self, tile: Tile, states: tuple[State, ...]) -> None:
        """By atomic rename: two processes that do one tile write the same state."""
        for name, state in zip(tile.files, states, strict=True):
            save_state(state, self.path(name))

    def load(self, tile: Tile) -> tuple[State, ...]:
        """The states of a tile; ``CorruptStateError`` or ``StateMismatchError`` if a file is anything else."""
        places = [(tile.row, tile.other), (tile.other, tile.row)]
        return tuple(self._load(tile, name, *place) for name, place in zip(tile.files, places, strict=False))

    def _load(self, tile: Tile, name: str, row: int, other: int) -> State:
        path = self.path(name)
        expected = self._expected(tile.stage, row)
        tensors = [t for t in expected.to_dict().values() if isinstance(t, torch.Tensor)]
        most = sum(t.numel() * t.element_size() for t in tensors) + _HEADER_BYTES
        if path.stat().st_size > most:
            raise CorruptStateError(f"{path}: {path.stat().st_size:,} bytes, and the tile has at most {most:,}")
        state = load_state(path)
        if type(state) is not type(expected) or _form(state) != _form(expected):
            raise StateMismatchError(f"{path}: a state of something else; delete it, and do the tile again")
        if state.coverage != self._covered(tile.stage, row, other):
            raise StateMismatchError(f"{path}: of other rows than the tile's; delete it, and do the tile again")
        return state

    def _expected(self, stage: str, row: int) -> State:
        """The empty state of that form."""
        manifest = self._manifest
        if stage == "vectors":
            return Gram.empty(manifest.dim) if manifest.gram else Moments.empty(manifest.dim)
        if stage == "pairs":
            assert manifest.pairs is not None
            return Pairs.empty(manifest.dim, **manifest.pairs)
        assert manifest.neighbors is not None
        dtype = torch.float64 if manifest.dtype == "float64" else torch.float32
        return Neighbors.empty(manifest.dim, manifest.neighbors, *manifest.rows_of(row), dtype=dtype)

    def _covered(self, stage: str, row: int, other: int) -> Coverage | PairCoverage:
        rows, others, name = self._manifest.rows_of(row), self._manifest.rows_of(other), self._manifest.name
        return Coverage.of(name, *rows) if stage == "vectors" else PairCoverage.of(name, rows, name, others)


def _form(state: State) -> dict[str, object]:
    """Settings, and dtypes and shapes of the tensors."""
    content = state.to_dict()
    return {
        name: (value.dtype, tuple(value.shape)) if isinstance(value, torch.Tensor) else value
        for name, value in content.items()
        if name not in ("coverage", "provenance")
    }
