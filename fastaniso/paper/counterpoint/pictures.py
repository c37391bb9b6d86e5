"""The tables raw and centred, and the states before and after the final norm, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastaniso.paper.counterpoint.judging import called, norms
from fastaniso.paper.experiment import Measured, Picture
from fastaniso.report import BLUE, GREY, ORANGE, figure, label, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(measured: Measured) -> Sequence[Picture]:
    """A picture of tables and one of norms, where there are any."""
    models = measured["models"]
    tables = [(called(record, table), table) for record in models for table in record["tables"]]
    around = norms(models)
    pictures = []
    if tables:
        isotropy = [(name, t["isotropy"], t["centred_isotropy"]) for name, t in tables]
        cosine = [(name, t["cosine"], t["centred_cosine"]) for name, t in tables]
        with styled():
            drawn = figure(10.5, 1.4 + 0.34 * len(tables))
            left, right = drawn.subplots(1, 2, sharey=True)
            _moves(left, isotropy, "as it is", "centred")
            label(left, "Partition isotropy", "I(W), 1 is isotropic", "")
            _moves(right, cosine, "as it is", "centred")
            label(right, "Mean cosine", "mean cosine, 0 is isotropic", "")
            # Below the axes: no corner of them is free for sure.
            drawn.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        caption = (
            "Embedding tables as they are and less their mean. Tied: one table for input and output. A table with "
            "fewer rows than dimensions has directions without a row, so that its I(W) says little."
        )
        pictures.append(Picture("tables", caption, drawn))
    if around:
        with styled():
            drawn = figure(7, 1.4 + 0.34 * len(around))
            axes = drawn.subplots()
            _moves(axes, [(name, n["before"], n["after"]) for name, _, n in around], "before", "after")
            label(axes, "States around the final norm", "mean cosine", "")
            drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        caption = "Mean cosine of the hidden states that go into the final norm and of those that come out of it."
        pictures.append(Picture("norms", caption, drawn))
    return pictures


def _moves(axes: Axes, rows: Sequence[tuple[str, float, float]], first: str, last: str) -> None:
    """A row a name: from one value to another."""
    places = range(len(rows))
    begins, ends = [row[1] for row in rows], [row[2] for row in rows]
    axes.hlines(places, begins, ends, color=GREY, linewidth=1)
    axes.plot(begins, places, "o", color=BLUE, label=first, markersize=6)
    axes.plot(ends, places, "D", color=ORANGE, label=last, markersize=5)
    axes.set_yticks(list(places), [row[0] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.05), max(high, 1.05))
