"""The distribution of the cosine over all pairs: its density, and the share of pairs above each value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastaniso.report.style import BLUE, GREY, ORANGE, RED, figure, label, styled, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fastaniso.result import PairStatistics

_BARS = 256


def plot_pairs(statistics: PairStatistics) -> Figure:
    """Density with mean and quantiles, and the share above each value on a logarithmic scale."""
    with styled():
        drawn = figure(11, 3.8)
        density, above = drawn.subplots(1, 2)
        _density(density, statistics)
        _above(above, statistics)
        title(drawn, "; ".join(statistics.provenance), _line(statistics))
    return drawn


def _line(p: PairStatistics) -> str:
    rows = f"{p.n:,} rows" if p.others is None else f"{p.n:,} rows with {p.others:,} others"
    how = "exact" if p.sample is None else f"estimated from {p.sample.pairs:,}, shaded: 95 % intervals"
    return f"{rows} of {p.dim} numbers; {p.pairs:,} pairs, {how}"


def _density(axes: Axes, p: PairStatistics) -> None:
    # Bins are joined until those that hold a pair are no more than a picture can show.
    step = -(-int(np.count_nonzero(p.histogram.total)) // _BARS) or 1
    counts = np.add.reduceat(p.histogram.values(), np.arange(0, len(p.histogram), step))
    edges = np.append(p.histogram.edges[:-1:step], p.histogram.edges[-1])
    if not counts.any():
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no pair", transform=axes.transAxes, ha="center", va="center")
        return
    axes.stairs(counts / counts.sum() / np.diff(edges), edges, fill=True, color=BLUE, alpha=0.85)
    low, median, high = p.quantile([0.05, 0.5, 0.95]).value
    if p.mean is not None:
        axes.axvline(p.mean, color=RED, linestyle="--", linewidth=1.2, label=f"mean {p.mean:.4f}")
    axes.axvline(median, color=ORANGE, linewidth=1.2, label=f"median {median:.4f}")
    axes.axvspan(low, high, color=GREY, alpha=0.15, linewidth=0, label=f"5 % to 95 %: {low:.3f} to {high:.3f}")
    _limit(axes, p)
    label(axes, "Distribution of the cosine", "cosine of a pair", "density")
    axes.legend(loc="best")


def _above(axes: Axes, p: PairStatistics) -> None:
    counts, edges = p.histogram
    total = counts.sum()
    if not total:
        axes.set_axis_off()
        return
    above = np.append(counts[::-1].cumsum()[::-1], 0) / total
    shown = above > 0
    axes.plot(edges[shown], above[shown], color=BLUE)
    if p.histogram.interval_below is not None:
        high, low = 1 - p.histogram.interval_below[:, shown]
        axes.fill_between(edges[shown], low.clip(min=above[shown].min() / 10), high, color=BLUE, alpha=0.2)
    for threshold, share in zip(p.thresholds, p.shares_above, strict=True):
        if share.value > 0:
            axes.plot([threshold], [share.value], "o", color=RED, label=f"{share.value:.3g} above {threshold:g}")
    axes.set_yscale("log")
    _limit(axes, p)
    label(axes, "Share of pairs above", "cosine", "share of pairs with a larger cosine")
    if p.thresholds:
        axes.legend(loc="lower left")


def _limit(axes: Axes, p: PairStatistics) -> None:
    least, largest = p.quantile([0, 1]).value
    margin = 0.03 * max(largest - least, 1e-3)
    axes.set_xlim(least - margin, largest + margin)
