"""One page on one set of rows: which dimensions carry the mean cosine, the spectrum, and the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastaniso.report.style import BLUE, GREY, ORANGE, RED, figure, label, not_measured, styled, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fastaniso.result import Description

_BARS = 12


def plot_site(description: Description, heading: str) -> Figure:
    """Contributions by dimension, how they add up, the spectrum, and a table of the figures."""
    with styled():
        drawn = figure(11, 6.2)
        (top, cumulative), (spectrum, figures) = drawn.subplots(2, 2)
        _top_dimensions(top, description)
        _cumulative(cumulative, description)
        _spectrum(spectrum, description)
        _figures(figures, description)
        title(
            drawn,
            heading,
            f"{description.n:,} rows of {description.dim} numbers; exact over all {description.pairs:,} ordered pairs",
        )
    return drawn


def _top_dimensions(axes: Axes, d: Description) -> None:
    indices, values = d.contributions.top(_BARS)
    axes.bar(range(len(values)), values, color=BLUE, width=0.7)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xticks(range(len(values)), [str(i) for i in indices])
    axes.grid(visible=False, axis="x")
    label(axes, "Dimensions that contribute most", "dimension", "contribution to the mean cosine")


def _cumulative(axes: Axes, d: Description) -> None:
    ordered = np.sort(d.contributions.values)[::-1]
    axes.axhline(d.mean_cosine, color=RED, linestyle="--", linewidth=1, label=f"mean cosine {d.mean_cosine:.3f}")
    axes.plot(np.arange(1, len(ordered) + 1), ordered.cumsum(), color=BLUE, label="sum of the largest contributions")
    axes.set_xscale("log")
    axes.set_xlim(1, max(len(ordered), 2))
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    label(axes, "How contributions add up", "number of dimensions, largest first", "sum of contributions")
    axes.legend(loc="lower right")


def _spectrum(axes: Axes, d: Description) -> None:
    if d.eigenvalues is None:
        not_measured(axes, "Spectrum")
        return
    total = d.eigenvalues.sum()
    shares = d.eigenvalues / total if total > 0 else d.eigenvalues
    # What rounding leaves of a zero eigenvalue is no spectrum.
    shown = shares[shares > np.finfo(np.float64).eps * d.dim]
    axes.plot(np.arange(1, len(shown) + 1), shown, color=BLUE, label="share of eigenvalue (uncentred)")
    axes.axhline(1 / d.dim, color=GREY, linestyle="--", linewidth=1, label=f"isotropic, 1/{d.dim}")
    if d.effective_rank is not None and np.isfinite(d.effective_rank):
        axes.axvline(
            d.effective_rank, color=ORANGE, linestyle=":", linewidth=1.4, label=f"effective rank {d.effective_rank:.1f}"
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    label(axes, "Spectrum", "rank of the eigenvalue", "share of Σ‖x‖²")
    axes.legend(loc="lower left")


def _figures(axes: Axes, d: Description) -> None:
    rows = [
        ("mean cosine", d.mean_cosine),
        ("   std over pairs", d.cosine_std),
        ("   within one sequence", d.within_groups),
        ("   across two sequences", d.between_groups),
        ("   without the top 3 dimensions", d.mean_cosine_without_top3),
        ("drift ‖mean‖", d.drift.norm_of_mean),
        ("   over the mean norm", d.drift.relative),
        ("norm, mean", d.norms.mean),
        ("   std", d.norms.std),
        ("   min", d.norms.min),
        ("   max", d.norms.max),
        ("IsoScore (centred)", d.isoscore),
        ("participation ratio (centred)", d.participation_ratio),
        ("effective rank (uncentred)", d.effective_rank),
    ]
    known = [(name, value) for name, value in rows if value is not None]
    axes.set_axis_off()
    axes.set_title("Figures")
    for line, (name, value) in enumerate(known):
        y = 0.97 - line / len(rows)
        axes.text(0.0, y, name, transform=axes.transAxes, va="top")
        axes.text(0.75, y, f"{value:.4g}", transform=axes.transAxes, va="top", ha="right", family="monospace")
