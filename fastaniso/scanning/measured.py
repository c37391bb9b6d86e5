"""What a measurement of stored vectors gives."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastaniso.result import Description, Hubness, NearestNeighbors, PairStatistics, json_ready
from fastaniso.scanning.saving import save_json, save_pictures
from fastaniso.state import Gram, Moments, State

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class MeasureResult:
    """Stored vectors described: all rows of all files as one set.

    ``pairs``, ``neighbors`` (cosines and indices, counted over all files in order) and ``hubness`` are None where they
    were not asked for. ``states`` are those that the figures come from: "vectors", "pairs" and "neighbors".
    """

    data: tuple[str, ...]
    description: Description
    pairs: PairStatistics | None
    hubness: Hubness | None
    seconds: float
    provenance: Mapping[str, Any] = field(repr=False)
    neighbors: NearestNeighbors | None = field(repr=False)
    states: Mapping[str, State] = field(repr=False)

    @property
    def state(self) -> Moments | Gram:
        """The state of the linear pass."""
        state = self.states["vectors"]
        assert isinstance(state, Moments | Gram)
        return state

    def to_dict(self) -> dict[str, Any]:
        """Plain dict of numbers and strings, without the states."""
        content = {
            "kind": "measure",
            "format": FORMAT_VERSION,
            "data": list(self.data),
            **self.description.to_dict(),
            "seconds": self.seconds,
            "made_from": dict(self.provenance),
        }
        if self.pairs is not None:
            content["pair_statistics"] = self.pairs.to_dict()
        if self.hubness is not None:
            content["hubness"] = self.hubness.to_dict()
        return content

    def to_json(self, *, indent: int | None = None) -> str:
        """JSON of ``to_dict``; nan and ±inf, which JSON lacks, become null."""
        return json.dumps(json_ready(self.to_dict()), indent=indent, ensure_ascii=False, allow_nan=False)

    def plot(self) -> Figure:
        """Contributions, spectrum and key figures: a Figure, not shown. Needs matplotlib."""
        from fastaniso.report import plot_site
        from fastaniso.report.style import short

        return plot_site(self.description, short(", ".join(self.data), 110))

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write ``measure.json``, ``states/NAME.safetensors`` and, where matplotlib is, ``plots/NAME.png``.

        The neighbours are in ``states/neighbors.safetensors``, as its tensors ``cosines`` and ``indices``.
        """
        written = save_json(Path(folder), "measure.json", self.to_json(indent=2), self.states)
        pictures: dict[str, Callable[[], Figure]] = {"vectors": self.plot}
        if self.pairs is not None:
            pictures["pairs"] = self.pairs.plot
        return written + save_pictures(Path(folder) / "plots", pictures)

    def __str__(self) -> str:
        """The tables that ``print`` shows."""
        parts = [f"{', '.join(self.data)}\n{self.description}"]
        if self.pairs is not None:
            parts.append(f"all pairs\n{self.pairs}")
        if self.hubness is not None:
            parts.append(f"nearest neighbours\n{self.hubness}")
        return "\n\n".join(parts)
