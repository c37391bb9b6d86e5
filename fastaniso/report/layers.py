"""Curves over the layers of a model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fastaniso.report.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    figure,
    label,
    not_measured,
    short,
    styled,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fastaniso.scanning.result import ScanResult, SiteResult


def plot_layers(result: ScanResult) -> Figure:
    """Mean cosine, drift, norms and spectral scores from the embedding to the last site, a row of panels a stack."""
    stacks = result.stacks
    with styled():
        drawn = figure(13, 3.5 * len(stacks) + 0.5)
        grid = drawn.subplots(len(stacks), 4, squeeze=False)
        for row, (prefix, sites) in zip(grid, stacks.items(), strict=True):
            # What goes into the final norm is the last block's state: a point of its own would show a false plateau.
            own = [site for site in sites if site.same_as is None]
            names = [_short_name(site.site.removeprefix(prefix)) for site in own]
            where = f" ({prefix.rstrip('.')})" if prefix else ""
            _cosine_panel(row[0], own, where)
            _drift_panel(row[1], own, where, result.drift_correlation[prefix])
            _norm_panel(row[2], own, where)
            _spectrum_panel(row[3], own, where)
            for axes in row:
                name_layers(axes, names)
        tokens = result.tokens
        title(
            drawn,
            f"{short(result.model, 60)} on {short(result.data, 60)}",
            f"{tokens.kept:,} {tokens.unit} in {tokens.sequences:,} {tokens.item}, "
            f"left out: {', '.join(tokens.dropped) or 'nothing'}; exact over all ordered pairs; "
            "ρ: Spearman's of ‖mean‖ and mean cosine over the layers",
        )
    return drawn


def _cosine_panel(axes: Axes, sites: list[SiteResult], where: str) -> None:
    x = range(len(sites))
    mean = [site.description.mean_cosine for site in sites]
    axes.axhline(0, color=GREY, linewidth=0.8)
    if all(site.description.cosine_std is not None for site in sites):
        std = [site.description.cosine_std or 0.0 for site in sites]
        low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=BLUE, alpha=0.12, linewidth=0, label="±1 std over pairs")
    axes.plot(x, mean, "o-", color=BLUE, label="all pairs")
    axes.plot(x, [site.within_sequence for site in sites], "^--", color=ORANGE, label="same sequence")
    axes.plot(x, [site.across_sequences for site in sites], "v:", color=GREEN, label="two sequences")
    label(axes, f"Mean cosine{where}", "layer", "cosine of two tokens")
    _legend_above_data(axes)


def _drift_panel(axes: Axes, sites: list[SiteResult], where: str, correlation: float) -> None:
    x = range(len(sites))
    axes.plot(x, [site.description.drift.relative for site in sites], "s-", color=RED, label="drift ‖mean‖ / mean norm")
    axes.plot(
        x,
        [site.description.mean_cosine_without_top3 for site in sites],
        "D--",
        color=PURPLE,
        label="mean cosine without top 3 dim.",
    )
    axes.plot(x, [site.description.mean_cosine for site in sites], "o-", color=BLUE, label="mean cosine")
    rho = "" if math.isnan(correlation) else f", ρ = {correlation:+.2f}"
    label(axes, f"Drift{where}{rho}", "layer", "share (no unit)")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _legend_above_data(axes)


def _norm_panel(axes: Axes, sites: list[SiteResult], where: str) -> None:
    x = range(len(sites))
    norms = [site.description.norms for site in sites]
    low, high = [n.min for n in norms], [n.max for n in norms]
    axes.fill_between(x, low, high, color=GREY, alpha=0.15, linewidth=0, label="min to max")
    axes.plot(x, [n.mean for n in norms], "o-", color=GREY, label="mean norm")
    axes.plot(x, [site.description.drift.norm_of_mean for site in sites], "s-", color=RED, label="drift ‖mean‖")
    label(axes, f"Norms{where}", "layer", "norm (units of the hidden state)")
    axes.set_yscale("log")
    _legend_above_data(axes)


def _spectrum_panel(axes: Axes, sites: list[SiteResult], where: str) -> None:
    described = [site.description for site in sites]
    if any(d.isoscore is None or d.effective_rank is None for d in described):
        not_measured(axes, f"Spectrum{where}")
        return
    x = range(len(sites))
    axes.plot(x, [d.isoscore or 0.0 for d in described], "o-", color=GREEN, label="IsoScore (centred)")
    axes.plot(
        x,
        [(d.effective_rank or 0.0) / d.dim for d in described],
        "s--",
        color=ORANGE,
        label="effective rank / d (uncentred)",
    )
    label(axes, f"Spectrum{where}, d = {described[0].dim}", "layer", "share of isotropic")
    axes.set_ylim(0, 1)
    _legend_above_data(axes)


def _legend_above_data(axes: Axes) -> None:
    """Room above the curves for the legend, so that it covers none of them."""
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log":
        axes.set_ylim(low, high * (high / low) ** 0.35)
    else:
        axes.set_ylim(low, high + 0.38 * (high - low))
        # Cosines and shares end at 1: a scale that goes on beyond would say otherwise.
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick < 1.001])
    axes.legend(loc="upper left")


def name_layers(axes: Axes, names: list[str]) -> None:
    """At most a dozen names, always the first and the last."""
    step = -(-len(names) // 12)
    shown = sorted({*range(0, len(names), step), len(names) - 1})
    if len(shown) > 1 and shown[-1] - shown[-2] < step:
        del shown[-2]
    axes.set_xticks(shown, [names[i] for i in shown])
    axes.set_xlim(-0.4, len(names) - 0.6)


def _short_name(site: str) -> str:
    return {"embedding": "emb.", "post_final_norm": "norm"}.get(site, site.removeprefix("block."))
