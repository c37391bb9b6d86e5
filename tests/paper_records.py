"""Records of models as the paper's experiments measure them, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def line(
    cosines: Sequence[float | None],
    *,
    name: str = "",
    drifts: Sequence[float] | None = None,
    rho: float | None = 0.9,
    p: float | None = 0.01,
) -> dict[str, Any]:
    """A stack with these mean cosines; the last site is a block."""
    count = len(cosines)
    drifts = list(range(1, count + 1)) if drifts is None else list(drifts)
    return {
        "name": name,
        "sites": ["embedding", *(f"block.{i}" for i in range(count - 1))],
        "is_layer": [True] * count,
        "dim": [8] * count,
        "mean_cosine": list(cosines),
        "within": list(cosines),
        "across": list(cosines),
        "drift": drifts,
        "relative_drift": drifts,
        "norm": [1.0] * count,
        "correlation": {"rho": rho, "p": p, "n": count, "method": "exact permutation"},
    }


def record(
    name: str, figure: str, *lines: dict[str, Any], trained: bool = True, of: str | None = None
) -> dict[str, Any]:
    """A model with these stacks; ``of`` names the trained model that it stands beside, with random weights."""
    return {
        "name": name,
        "model": name,
        "figure": figure,
        "trained": trained,
        "control_of": of,
        "data": "texts",
        "kind": "text",
        "read": "10 tokens of 1 sequences",
        "parameters": 1,
        "lines": list(lines),
        "notes": [],
    }


def measured(*records: dict[str, Any]) -> dict[str, Any]:
    """What an experiment measured."""
    return {"size": "smoke", "models": list(records), "skipped": {}}
