"""Queries and keys of single heads in a plane, at a few steps of a training: small multiples on the same axes."""

from __future__ import annotations

import numpy as np

from fastaniso.paper.experiment import Measured, Picture
from fastaniso.report import BLUE, GREY, ORANGE, figure, styled


def draw_clouds(measured: Measured) -> Picture:
    """A row a head, a column a step; the axes of a row are those of all its steps together."""
    shown = measured["projections"]
    with styled():
        columns = max(len(head["steps"]) for head in shown)
        drawn = figure(max(1.75 * columns, 5.0), 1.85 * len(shown) + 0.6)
        grid = drawn.subplots(len(shown), columns, squeeze=False)
        for row, head in zip(grid, shown, strict=True):
            limits = _limits(head["queries"] + head["keys"])
            for axes in row[len(head["steps"]) :]:
                axes.set_axis_off()
            for axes, step, queries, keys in zip(row, head["steps"], head["queries"], head["keys"], strict=False):
                axes.axhline(0, color=GREY, linewidth=0.5)
                axes.axvline(0, color=GREY, linewidth=0.5)
                axes.scatter(*queries, s=5, color=BLUE, alpha=0.6, linewidth=0, label="queries")
                axes.scatter(*keys, s=5, color=ORANGE, alpha=0.7, linewidth=0, label="keys")
                axes.set_xlim(*limits[0])
                axes.set_ylim(*limits[1])
                axes.set_title(f"step {step:,}", fontsize=8, fontweight="normal")
                axes.tick_params(labelsize=6)
                if axes is not row[0]:
                    axes.tick_params(labelleft=False)
            place = f"{_short(head['layer'])}, head {head['head']}"
            cosine = f"{head['cosine']:+.2f}".replace("-", "−")
            row[0].set_ylabel(f"{head['model'].split(' (')[0]}\n{place}\ncos {cosine}", fontsize=7)
        drawn.supxlabel("on the first singular vector", fontsize=8)
        drawn.supylabel("on the second", fontsize=8)
        grid[0, 0].legend(loc="best", markerscale=2, handletextpad=0.1, fontsize=7)
    shares = ", ".join(f"{head['share']:.0%}" for head in shown)
    count = len(shown[0]["queries"][0][0])
    caption = (
        "Queries and keys of the heads with the largest and the least cos(Q̄, K̄) at the end, of each model's first run, "
        f"at the same {count} positions, on the first two right singular vectors of the union of both over the steps "
        f"shown ({shares} of Σσ²). The lines cross at the origin; the axes of a row are the same."
    )
    return Picture("clouds", caption, drawn)


def _limits(clouds: list[list[list[float]]]) -> list[tuple[float, float]]:
    """Of both axes, with the origin inside and some room."""
    limits = []
    for axis in (0, 1):
        values = np.concatenate([np.asarray(cloud[axis]) for cloud in clouds])
        low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
        room = 0.06 * (high - low)
        limits.append((low - room, high + room))
    return limits


def _short(layer: str) -> str:
    """``h.3`` of ``transformer.h.3.attn``: the number of a layer and what holds it."""
    parts = layer.split(".")
    place = next((index for index, part in enumerate(parts) if part.isdigit()), None)
    return layer if place is None else ".".join(parts[max(0, place - 1) : place + 1])
