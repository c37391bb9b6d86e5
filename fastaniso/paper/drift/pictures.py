"""Drift against mean cosine, a panel a model."""

from __future__ import annotations

from collections.abc import Sequence

from fastaniso.paper.drift.judging import layer_pairs
from fastaniso.paper.experiment import Measured, Picture
from fastaniso.paper.models.records import Line, Record, all_trained, name_of, untrained
from fastaniso.report import BLUE, GREY, RED, figure, styled

COLUMNS = 5
MOST_PANELS = 20


def draw(measured: Measured) -> Sequence[Picture]:
    """Trained models, and untrained ones of the families."""
    kinds = (("trained", all_trained(measured), BLUE), ("untrained", untrained(measured), GREY))
    return [_panels(name, records, color) for name, records, color in kinds if records]


def _panels(name: str, records: Sequence[Record], color: str) -> Picture:
    every = [(record, line) for record in records for line in record["lines"]]
    lines = every[:MOST_PANELS]
    rows = -(-len(lines) // COLUMNS)
    columns = -(-len(lines) // rows)
    with styled():
        drawn = figure(max(4.2, 2.5 * columns), 2.5 * rows + 0.3)
        grid = drawn.subplots(rows, columns, squeeze=False, sharey=True)
        panels = grid.flat
        for (record, line), axes in zip(lines, panels, strict=False):
            pairs = layer_pairs(line)
            axes.plot(*zip(*pairs, strict=True), color=color, marker="o", markersize=3, linewidth=0.8)
            # The first layer in another colour and shape, so that the way along the line can be told.
            axes.plot(*pairs[0], color=RED, marker="s", markersize=5)
            axes.axhline(0, color=GREY, linewidth=0.8)
            axes.set_title(f"{name_of(record, line)}\n{_correlation(line)}", fontsize=8)
            axes.tick_params(labelsize=7)
            axes.locator_params(axis="x", nbins=4)
        for axes in panels:
            axes.set_axis_off()
        drawn.supxlabel("drift ‖mean‖ (units of the hidden state)", fontsize=9)
        drawn.supylabel("mean cosine", fontsize=9)
    left = len(every) - len(lines)
    return Picture(
        name,
        f"Drift ‖mean‖ against mean cosine over embedding and blocks of {name} models, the first layer a red square; "
        "Spearman's ρ and its two-sided p." + (f" {left} more are in the table." if left else ""),
        drawn,
    )


def _correlation(line: Line) -> str:
    rho, p = line["correlation"]["rho"], line["correlation"]["p"]
    if rho is None:
        return "too few layers"
    return f"ρ = {rho:+.2f}, {'p < 1e-6' if p < 1e-6 else f'p = {p:.2g}'}"
