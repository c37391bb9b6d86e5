"""Targets of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from bench import catalogue
from bench.harness import OURS, Row
from bench.targets.target import Target, find, ratio


def _over_passes(rows: Sequence[Row]) -> float | None:
    """Time of everything over that of the passes it needs."""
    taken = {row.contender: row.p50_ms for row in find(rows, op="describe", size=catalogue.EVERYTHING)}
    passes = [ms for name, ms in taken.items() if name != OURS]
    everything = taken.get(OURS)
    return None if everything is None else everything / sum(ms for ms in passes if ms is not None)


OTHERS = (
    Target("describe(metrics='all'), times gram, pairs and neighbors", 1.3, _over_passes, at_least=False),
    Target("isoscore, times the package IsoScore", 1, ratio("isoscore", catalogue.ISOSCORE_SIZE, "isoscore_package")),
)
