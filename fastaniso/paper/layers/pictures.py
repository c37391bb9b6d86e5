"""The mean cosine over the layers, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from fastaniso.paper.experiment import Measured, Picture
from fastaniso.paper.models.figures import FIGURES
from fastaniso.paper.models.records import Line, Record, all_trained, control, name_of, trained, untrained
from fastaniso.report import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, figure, label, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = (BLUE, RED, GREEN, PURPLE, ORANGE, GREY)
LOOKS: list[dict[str, Any]] = [
    {"color": color, "marker": marker, "markersize": 3} for color, marker in zip(COLORS, "osD^vP", strict=True)
]
MOST_PANELS = 9
CHANNELS = 3
"""Numbers of a pixel."""

DEPTH = "depth (0 first layer, 1 last)"


def draw(measured: Measured) -> Sequence[Picture]:
    """All models by the paper's figures; trained models one by one, each beside an untrained one."""
    records = all_trained(measured)
    pictures = [_overview(measured)] if measured["models"] else []
    return [*pictures, _beside(measured, records)] if records else pictures


def _overview(measured: Measured) -> Picture:
    pictures = [r["name"] for r in measured["models"] if any(line["dim"][0] == CHANNELS for line in r["lines"])]
    pixels = f" The first stage of {', '.join(pictures)} takes the picture itself." if pictures else ""
    shown = [name for name in FIGURES if trained(measured, name) or untrained(measured, name)]
    with styled():
        drawn = figure(10, 3.2 * -(-len(shown) // 3))
        panels = drawn.subplots(-(-len(shown) // 3), 3, squeeze=False, sharey=True).flat
        for name, axes in zip(shown, panels, strict=False):
            # Colours start anew for the untrained: dashes tell them apart.
            for some, dash, width in ((trained, "-", 2.0), (untrained, "--", 1.2)):
                lines = [(record, line) for record in some(measured, name) for line in record["lines"]]
                for (record, line), look in zip(lines, cycle(LOOKS), strict=False):
                    _line(axes, line, name_of(record, line), **look, linestyle=dash, linewidth=width)
            where = FIGURES[name].where
            label(axes, FIGURES[name].title + (f" ({where})" if where else ""), DEPTH, "mean cosine")
            _finish(axes)
        for axes in panels:
            axes.set_axis_off()
    return Picture(
        "layers",
        "Mean cosine over the layers, by figures of the paper. Solid: trained; dashed: untrained. Stages of one model "
        "are one line, an encoder and its decoder two; after a final norm is a point of its own." + pixels,
        drawn,
    )


def _beside(measured: Measured, records: Sequence[Record]) -> Picture:
    lines = [(record, line) for record in records for line in record["lines"]][:MOST_PANELS]
    width = min(3, len(lines))
    with styled():
        drawn = figure(3.7 * width if width > 1 else 5, 3.4 * -(-len(lines) // width))
        panels = drawn.subplots(-(-len(lines) // width), width, squeeze=False, sharey=True).flat
        for (record, line), axes in zip(lines, panels, strict=False):
            _line(axes, line, "all pairs", color=BLUE, marker="o")
            _line(axes, line, "within one sequence", "within", color=ORANGE, marker="^", linestyle="--")
            _line(axes, line, "across two", "across", color=GREEN, marker="v", linestyle=":")
            other = control(measured, record)
            for own in other["lines"] if other else ():
                if own["name"] == line["name"]:
                    _line(axes, own, "untrained, all pairs", color=GREY, marker="s", linestyle="-.", markersize=3)
            label(axes, name_of(record, line), DEPTH, "mean cosine")
            _finish(axes)
        for axes in panels:
            axes.set_axis_off()
    left = sum(len(record["lines"]) for record in records) - len(lines)
    return Picture(
        "trained",
        "Trained models one by one: all pairs of positions, those of one sequence and those of two; grey: the same "
        "configuration with random weights on the same data." + (f" {left} more are in the table." if left else ""),
        drawn,
    )


def _line(axes: Axes, line: Line, name: str, value: str = "mean_cosine", **look: Any) -> None:
    values = [float("nan") if x is None else x for x in line[value]]
    depth = [number / max(1, len(values) - 1) for number in range(len(values))]
    axes.plot(depth, values, label=name, **{"linewidth": 1.2, **look})


def _finish(axes: Axes) -> None:
    """A scale that ends at 1, and above it room for the legend."""
    axes.axhline(0, color=GREY, linewidth=0.8)
    rows = -(-len(axes.get_legend_handles_labels()[1]) // 2)
    axes.legend(loc="upper left", ncols=2, fontsize=6.5, borderaxespad=0, columnspacing=1, handlelength=2.6)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.05), max(high, 1.06 + 0.09 * rows))
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
