"""Figures of one or several runs: a metric over the layers, drift against anisotropy, spectra, top dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastaniso.report.layers import name_layers
from fastaniso.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, figure, label, short, styled, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastaniso.runs.run import Run, RunSite

_LOOKS = (
    (BLUE, "o", "-"),
    (RED, "s", "--"),
    (GREEN, "^", "-."),
    (PURPLE, "D", ":"),
    (ORANGE, "v", (0, (5, 1, 1, 1))),
)
_BARS = 10
_BARS_ARE = "bars: what other data of the same kind would likely change, 95 %"

CONFIDENT = 1.96
"""Standard errors to either side: what bars show."""


class _Line(NamedTuple):
    """One stack of one run, with a colour, a marker and a dash of its own: any of them tells it from the others."""

    run: Run
    stack: str
    sites: tuple[RunSite, ...]
    label: str
    look: dict[str, Any]


def plot_metric(runs: Sequence[Run], metric: str, heading: str, convention: str) -> Figure:
    """A metric from the embedding to the last site, a line a stack of a run; by depth where lengths differ."""
    with styled():
        drawn = figure(7.5, 4)
        axes = drawn.subplots()
        lines = [line for line in _lines(runs) if any(metric in site.values for site in line.sites)]
        lengths = {len(line.sites) for line in lines}
        told = convention
        for line in lines:
            values = [site.values.get(metric, math.nan) for site in line.sites]
            x = range(len(values)) if len(lengths) == 1 else np.linspace(0, 1, len(values))
            axes.plot(x, values, label=line.label, **line.look)
            bars = [CONFIDENT * site.noise[metric].likely if metric in site.noise else 0.0 for site in line.sites]
            if any(bars):
                axes.errorbar(x, values, bars, fmt="none", ecolor=line.look["color"], elinewidth=1, capsize=2.5)
                told = "; ".join(filter(None, (convention, _BARS_ARE)))
        label(axes, heading, "layer" if len(lengths) == 1 else "depth (0 first site, 1 last)", heading)
        if len(lengths) == 1:
            name_layers(axes, [site.short_name for site in lines[0].sites])
        if len(lines) > 1:
            axes.legend(loc="best")
        title(drawn, _whose(runs), told)
    return drawn


def plot_drift(runs: Sequence[Run]) -> Figure:
    """‖mean‖ of each layer against its mean cosine, with Spearman's ρ and p of each stack of each run."""
    with styled():
        drawn = figure(7.5, 4.4)
        axes = drawn.subplots()
        methods = set()
        named: list[tuple[str, tuple[float, float]]] = []
        for line in _lines(runs):
            layers = [site for site in line.sites if site.is_layer]
            found = line.run.drift_correlation()[line.stack]
            methods.add(found.method)
            tells = "" if math.isnan(found.rho) else f": ρ = {found.rho:+.2f}, {_chance(found.p)}"
            x = [site.values["drift.norm_of_mean"] for site in layers]
            y = [site.values["mean_cosine"] for site in layers]
            axes.plot(x, y, label=line.label + tells, **{**line.look, "linewidth": 0.8})
            named += [(site.short_name, at) for site, at in zip(layers, zip(x, y, strict=True), strict=True)]
        for name, at in _apart(named):
            axes.annotate(name, at, xytext=(4, 4), textcoords="offset points", fontsize=7, color=GREY)
        label(axes, "Drift against anisotropy", "drift ‖mean‖ (units of the hidden state)", "mean cosine")
        axes.legend(loc="best")
        title(
            drawn, _whose(runs), f"Spearman over embedding and blocks, two-sided p by {' and '.join(sorted(methods))}"
        )
    return drawn


def plot_spectrum(runs: Sequence[Run], site: str) -> Figure:
    """Share of each eigenvalue of Σxxᵀ over its rank, of one site in every run that has it."""
    with styled():
        drawn = figure(7.5, 4)
        axes = drawn.subplots()
        lowest = 1.0
        for run, look in zip(runs, _looks(), strict=False):
            for found in run.sites:
                if found.site == site and found.eigenvalues is not None:
                    shares = eigenvalue_shares(found.eigenvalues)
                    ranks = np.arange(1, len(shares) + 1)
                    axes.plot(ranks, shares, color=look["color"], linestyle=look["linestyle"], label=run.name)
                    axes.axhline(1 / found.dim, color=GREY, linestyle=":", linewidth=1)
                    lowest = min(lowest, lowest_shown(shares))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(bottom=lowest)
        label(axes, f"Spectrum of {site}", "rank of the eigenvalue", "share of Σ‖x‖²")
        axes.legend(loc="lower left")
        title(drawn, _whose(runs), "eigenvalues of the uncentred second moments; dotted: isotropic, 1/d")
    return drawn


def plot_top_dimensions(runs: Sequence[Run], site: str) -> Figure:
    """The dimensions of one site that contribute most to its mean cosine, a panel a run."""
    held = [(run, found) for run in runs for found in run.sites if found.site == site]
    with styled():
        drawn = figure(max(5.5, 4.5 * len(held)), 3.6)
        panels = drawn.subplots(1, len(held), squeeze=False, sharey=True)[0]
        for axes, (run, found), look in zip(panels, held, _looks(), strict=False):
            shown = found.top_dimensions[:_BARS]
            axes.bar(range(len(shown)), [value for _, value in shown], color=look["color"], width=0.7)
            axes.axhline(0, color=GREY, linewidth=0.8)
            axes.set_xticks(range(len(shown)), [str(dimension) for dimension, _ in shown])
            axes.grid(visible=False, axis="x")
            label(axes, run.name, "dimension", "contribution to the mean cosine")
        title(drawn, f"Dimensions that contribute most: {site}", "(s_k² − Σu_k²)/(n(n−1)); all of them sum to the mean")
    return drawn


def eigenvalue_shares(eigenvalues: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.float64]:
    """Eigenvalues over their sum, without those that are zero to rounding: they are no spectrum."""
    total = eigenvalues.sum()
    shares = eigenvalues / total if total > 0 else eigenvalues
    return shares[shares > np.finfo(np.float64).eps * len(shares)]


def lowest_shown(shares: np.typing.NDArray[np.float64]) -> float:
    """Where a picture of a spectrum ends: LayerNorm leaves a direction to rounding, far below all others."""
    return float(shares[int(0.98 * (len(shares) - 1))]) / 3 if len(shares) else 1.0


def _apart(named: list[tuple[str, tuple[float, float]]]) -> Iterator[tuple[str, tuple[float, float]]]:
    """Those that no other before them is near, so that names do not cover each other."""
    points = np.array([at for _, at in named])
    extent = np.ptp(points, axis=0) if len(points) else np.ones(2)
    near = np.array([0.04, 0.07]) * np.where(extent > 0, extent, 1)
    taken: list[int] = []
    for i, point in enumerate(points):
        if not (np.abs(points[taken] - point) < near).all(axis=-1).any():
            taken.append(i)
            yield named[i]


def _chance(p: float) -> str:
    """Beyond a millionth an approximation says no more than that."""
    return "p < 1e-6" if p < 1e-6 else f"p = {p:.2g}"


def _looks() -> Iterator[dict[str, Any]]:
    return ({"color": color, "marker": marker, "linestyle": dash} for color, marker, dash in cycle(_LOOKS))


def _lines(runs: Sequence[Run]) -> Iterator[_Line]:
    looks = _looks()
    for run in runs:
        stacks = run.stacks
        for stack, sites in stacks.items():
            name = f"{run.name} {stack.rstrip('.')}" if len(stacks) > 1 else run.name
            yield _Line(run, stack, sites, name, next(looks))


def _whose(runs: Sequence[Run]) -> str:
    return "; ".join(dict.fromkeys(about(run) for run in runs))


def about(run: Run) -> str:
    """The model and what it read, or what was measured, in a line."""
    model, data = (short(str(run.about.get(key, "")), 50) for key in ("model", "data"))
    return f"{model} on {data}" if model else data
