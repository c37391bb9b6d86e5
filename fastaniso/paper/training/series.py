"""Curves over the steps of a run, from the JSON of a measurement: means over heads or layers, and runs by model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastaniso.paper.experiment import Measured

Run = Mapping[str, Any]
Curve = list[float | None]


def by_model(measured: Measured) -> dict[str, list[Run]]:
    """The runs of each model, one a seed."""
    runs: dict[str, list[Run]] = {}
    for run in measured["runs"]:
        runs.setdefault(run["model"], []).append(run)
    return runs


def over_heads(run: Run, name: str, *, absolute: bool = False) -> Curve:
    """Mean over all heads of all layers, step by step."""
    return [_mean(_flat(layers), absolute) for layers in run[name]]


def of_layer(run: Run, name: str, layer: int, *, absolute: bool = False) -> Curve:
    """Mean over the heads of one layer, step by step."""
    return [_mean(layers[layer], absolute) for layers in run[name]]


def of_site(run: Run, name: str, site: int) -> list[float]:
    """The value of one site of hidden states, step by step."""
    return [values[site] for values in run[name]]


def over_blocks(run: Run, name: str) -> Curve:
    """Mean over the sites that are blocks, which leaves out what the first takes."""
    blocks = [index for index, site in enumerate(run["sites"]) if "block" in site]
    return [_mean([values[index] for index in blocks], False) for values in run[name]]


def heads(run: Run, name: str, step: int) -> list[float]:
    """The values of all heads at the step of this index; those that are not defined are left out."""
    return [value for value in _flat(run[name][step]) if value is not None]


def _flat(layers: Iterable[Iterable[float | None]]) -> list[float | None]:
    return [value for values in layers for value in values]


def _mean(values: Iterable[float | None], absolute: bool) -> float | None:
    known = [abs(value) if absolute else value for value in values if value is not None]
    return sum(known) / len(known) if known else None
