"""From the states of stored rows to the result of their measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastaniso.result import NearestNeighbors
from fastaniso.scanning.measured import MeasureResult
from fastaniso.scanning.provenance import versions
from fastaniso.state import Neighbors
from fastaniso.statistics.catalogue import Asked
from fastaniso.statistics.describe import describe
from fastaniso.statistics.neighbors import describe_hubness
from fastaniso.statistics.pairs import pair_statistics


def measured(
    states: Mapping[str, Any],
    *,
    names: Sequence[str],
    count: int,
    dtype: torch.dtype,
    device: str,
    invalid: str,
    asked: Sequence[Asked] = (),
    again: Mapping[tuple[str, Any], Any] | None = None,
    seconds: float = 0.0,
    waiting: float | None = None,
) -> MeasureResult:
    """All statistics of ``states`` ("vectors", "pairs", "neighbors") of ``count`` rows of the files ``names``.

    ``waiting`` are those of the ``seconds`` in which rows were waited for.
    """
    description = describe(states["vectors"], invalid=invalid, asked=asked, passes=again)
    of_rows: dict[str, Any] = {"n": description.n, "dropped": description.dropped}
    nearest: Neighbors | None = states.get("neighbors")
    made_from = {"dtypes": [str(dtype).removeprefix("torch.")], "device": device, "versions": versions()}
    if waiting is not None:
        made_from["waiting"] = {"seconds": waiting, "share": waiting / seconds}
    return MeasureResult(
        data=tuple(names),
        description=description,
        pairs=pair_statistics(states["pairs"], **of_rows) if "pairs" in states else None,
        hubness=None if nearest is None else describe_hubness(nearest, count, _kept(nearest), **of_rows),
        neighbors=None if nearest is None else NearestNeighbors(nearest.cosines, nearest.indices),
        seconds=seconds,
        provenance=made_from,
        states=states,
    )


def _kept(neighbors: Neighbors) -> Tensor | None:
    """The rows that count, where not all do: where there are two of them, each has a neighbour."""
    found = neighbors.indices[:, 0] >= 0
    return None if bool(found.all()) or not bool(found.any()) else torch.nonzero(found)[:, 0]
