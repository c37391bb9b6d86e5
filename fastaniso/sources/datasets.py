"""Hugging Face data sets: a ``Dataset`` in the process, or a folder that ``save_to_disk`` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastaniso.sources.columns import Column, import_arrow
from fastaniso.sources.errors import CorruptFileError
from fastaniso.sources.source import Source


def is_dataset(value: Any) -> bool:
    """Whether ``value`` is something of the package datasets, without importing it."""
    return type(value).__module__.partition(".")[0] == "datasets"


class DatasetRows(Source):
    """A column of vectors of a ``datasets.Dataset``, in its own order (a selection or shuffle is kept)."""

    def __init__(self, dataset: Any, column: str | None) -> None:
        """Find the column."""
        place = f"{type(dataset).__name__}"
        if not hasattr(dataset, "with_format") or not hasattr(dataset, "num_rows") or isinstance(dataset, dict):
            raise TypeError(
                f"path: expected a datasets.Dataset, or an IterableDataset for one linear pass, got {place}; "
                "take one split of a DatasetDict"
            )
        import_arrow(place)
        self._dataset = dataset.with_format("arrow")
        self._column = Column(place, dataset.features.arrow_schema, column)
        self.count = int(dataset.num_rows)
        self.dim = self._column.dim_of(self._read(0, 1)[0] if self.count and self._column.dim is None else None)
        self.dtype = self._column.dtype
        self._identity = str(getattr(dataset, "_fingerprint", ""))
        self.name = f"{place} {self._identity}:{self._column.name}"

    @property
    def fingerprint(self) -> list[Any]:
        """The data set's own fingerprint, which follows from its files and what was done to it, and the column."""
        dtype = str(self.dtype).removeprefix("torch.")
        return [self._identity, self._column.name, self.count, self.dim, dtype]

    def rows(self, start: int, stop: int) -> Tensor:
        """A view where the block lies in one batch of the data set, else a copy of the block."""
        stop = min(stop, self.count)
        pieces = []
        for array in self._read(start, stop) if stop > start else ():
            pieces.append(self._column.rows(array, start))
            start += len(array)
        if not pieces:
            return torch.empty(0, self.dim, dtype=self.dtype)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _read(self, start: int, stop: int) -> list[Any]:
        return [chunk for chunk in self._dataset[start:stop].column(self._column.name).chunks if len(chunk)]


def dataset_files(folder: Path) -> list[Path] | None:
    """The Arrow files of a folder that ``save_to_disk`` wrote, in order; None for another folder."""
    if (folder / "dataset_dict.json").is_file():
        splits = ", ".join(_json(folder / "dataset_dict.json").get("splits", ()))
        raise ValueError(f"path: {folder} is a data set of several splits; name one of them, DIR/SPLIT: {splits}")
    if not ((folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()):
        return None
    state = _json(folder / "state.json")
    try:
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise CorruptFileError(f"{folder / 'state.json'}: does not name the data set's files") from error
    if state.get("_indices_data_files"):
        raise ValueError(f"path: {folder} holds a selection of rows; save data_set.flatten_indices() to disk")
    return [folder / Path(name).name for name in names]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFileError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise CorruptFileError(f"{path}: expected a JSON object")
    return content
