"""Attention head by head: a heat map a run, and how it goes over the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastaniso.report.style import figure, label, styled, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from fastaniso.runs.run import Run

_NAMED = 24  # sites or heads that are named one by one; of more every second, third, …


def plot_heads(runs: Sequence[Run], name: str, heading: str, *, signed: bool) -> Figure:
    """A value of each head of each attention, one scale for all runs; two colours from 0 where it is ``signed``."""
    held = [(run, head_matrix(run, name)) for run in runs if any(name in a.values for a in run.attentions)]
    values = np.concatenate([matrix.ravel() for _, matrix in held])
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if signed:
        low, high = -max(-low, high), max(-low, high)
    with styled():
        rows = max(len(matrix) for _, matrix in held)
        drawn = figure(max(5.0, 4.6 * len(held)), min(1.9 + 0.24 * rows, 9))
        grid = drawn.subplots(1, len(held), squeeze=False)[0]
        for axes, (run, matrix) in zip(grid, held, strict=True):
            shown = axes.imshow(
                matrix, aspect="auto", cmap="RdBu_r" if signed else "cividis", vmin=low, vmax=high, origin="lower"
            )
            sites = [attention.short_name for attention in run.attentions if name in attention.values]
            step = -(-len(sites) // _NAMED)
            axes.set_yticks(range(0, len(sites), step), sites[::step])
            axes.set_xticks(range(0, matrix.shape[1], -(-matrix.shape[1] // _NAMED)))
            axes.grid(visible=False)
            label(axes, run.name, "head", "attention")
        drawn.colorbar(shown, ax=list(grid), label=heading)
        title(drawn, heading, "each head of each attention")
    return drawn


def head_matrix(run: Run, name: str) -> NDArray[np.float64]:
    """(attentions, heads) of those that have the value; nan where an attention has fewer heads than another."""
    rows = [attention.values[name] for attention in run.attentions if name in attention.values]
    matrix = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for row, values in zip(matrix, rows, strict=True):
        row[: len(values)] = values
    return matrix
