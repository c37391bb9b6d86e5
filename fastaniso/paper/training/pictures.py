"""Four pictures: hidden states, queries and keys, their directions over the steps, and clouds of both in a plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastaniso.paper.experiment import Measured, Picture
from fastaniso.paper.training.clouds import draw_clouds
from fastaniso.paper.training.series import Curve, Run, by_model, of_layer, of_site
from fastaniso.report import BLUE, GREY, RED, figure, label, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[["Axes", Sequence[Run]], None]
_NAMED = 6  # curves that are named one by one; of more, the first and the last


def draw(measured: Measured) -> Sequence[Picture]:
    """The pictures of a run."""
    models = by_model(measured)
    band = "lines are means over seeds, bands their least and largest" if _seeds(models) > 1 else "one run"
    has_loss = all(run["loss"] is not None for run in measured["runs"])
    states = {
        **({"loss (nats a token)": _loss} if has_loss else {}),
        "mean cosine": _by_site("mean_cosine"),
        "drift ‖x̄‖": _by_site("drift"),
        "drift ‖x̄‖ / E‖x‖": _by_site("drift_relative"),
    }
    norms = {
        "‖Q̄‖": _by_layer("query_norm"),
        "‖K̄‖": _by_layer("key_norm"),
        "entropy / log(keys)": _by_layer("entropy"),
    }
    directions = {
        "|cos(Q̄, K̄)|": _by_layer("cosine", absolute=True),
        "cos(Q̄, K̄)": _signed,
        "|Q̄·K̄| / √d": _by_layer("score", absolute=True),
    }
    return [
        _grid("states", f"Hidden states while models are trained, site by site: {band}.", models, states),
        _grid(
            "queries-keys",
            f"Norms of the mean query and the mean key, and the entropy of attention, means over the heads of a layer: "
            f"{band}.",
            models,
            norms,
        ),
        _grid(
            "directions",
            f"Mean query against mean key: |cos| and the score of both, means over the heads of a layer ({band}); "
            "between them every head by itself, of the first run, with the sign of its last step.",
            models,
            directions,
        ),
        draw_clouds(measured),
    ]


def _grid(name: str, caption: str, models: dict[str, list[Run]], rows: dict[str, Draw]) -> Picture:
    with styled():
        drawn = figure(4.0 * max(len(models), 1.4), 1.75 * len(rows) + 0.5)
        grid = drawn.subplots(len(rows), len(models), squeeze=False, sharex="col", sharey="row")
        for column, (model, runs) in enumerate(models.items()):
            for row, (quantity, curve) in enumerate(rows.items()):
                axes = grid[row, column]
                curve(axes, runs)
                label(axes, model if row == 0 else "", "", quantity if column == 0 else "")
            _step_axis(grid[-1, column], runs[0]["steps"])
            if column == 0:
                for axes in grid[:2, 0]:
                    _legend(axes)
    return Picture(name, caption, drawn)


def _legend(axes: Axes) -> None:
    count = len(axes.get_legend_handles_labels()[1])
    if count:
        axes.legend(ncols=2 if count > 3 else 1, fontsize=7, handlelength=1.4, columnspacing=1.0)


def _step_axis(axes: Axes, steps: Sequence[int]) -> None:
    """Logarithmic, with a place for step 0."""
    first = next((step for step in steps if step > 0), 1)
    axes.set_xscale("symlog", linthresh=first, linscale=0.5)
    known = [step for index, step in enumerate(steps) if index % -(-len(steps) // 7) == 0 and step < 0.6 * steps[-1]]
    axes.set_xticks([*known, steps[-1]], [f"{step:,}" for step in (*known, steps[-1])])
    axes.set_xticks([], minor=True)
    axes.set_xlim(-0.2 * first, 1.1 * steps[-1])
    axes.set_xlabel("training step (log, from 0)")


def _band(axes: Axes, steps: Sequence[int], curves: Sequence[Curve | list[float]], color: str, name: str) -> None:
    """The mean over seeds, and from the least to the largest of them."""
    values = np.array(curves, dtype=float)
    axes.plot(steps, values.mean(0), color=color, label=name, linewidth=1.3)
    if len(values) > 1:
        axes.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.18, linewidth=0)


def _loss(axes: Axes, runs: Sequence[Run]) -> None:
    steps = runs[0]["steps"]
    _band(axes, steps, [run["loss"]["held_out"] for run in runs], BLUE, "held-out text")
    trained = [run["loss"]["training"] for run in runs]
    _band(axes, steps[: len(trained[0])], trained, RED, "training batch")
    axes.axhline(runs[0]["loss"]["baseline"], color=GREY, linestyle=":", linewidth=1, label="token frequencies")


def _by_site(name: str) -> Draw:
    def drawn(axes: Axes, runs: Sequence[Run]) -> None:
        sites = runs[0]["sites"]
        for index, (site, color) in enumerate(zip(sites, _shades(sites), strict=True)):
            curves = [of_site(run, name, index) for run in runs]
            _band(axes, runs[0]["steps"], curves, color, _name(site, index, len(sites)))

    return drawn


def _by_layer(name: str, *, absolute: bool = False) -> Draw:
    def drawn(axes: Axes, runs: Sequence[Run]) -> None:
        layers = [f"layer {index}" for index in range(len(runs[0]["layers"]))]
        for index, (layer, color) in enumerate(zip(layers, _shades(layers), strict=True)):
            curves = [of_layer(run, name, index, absolute=absolute) for run in runs]
            _band(axes, runs[0]["steps"], curves, color, _name(layer, index, len(layers)))

    return drawn


def _signed(axes: Axes, runs: Sequence[Run]) -> None:
    run = runs[0]
    for layer in range(len(run["layers"])):
        for values in zip(*(layers[layer] for layers in run["cosine"]), strict=True):
            curve = np.array(values, dtype=float)
            axes.plot(run["steps"], curve, color=RED if curve[-1] < 0 else BLUE, linewidth=0.8, alpha=0.6)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_ylim(-1.05, 1.05)
    axes.plot([], [], color=BLUE, label="same way at the end")
    axes.plot([], [], color=RED, label="opposite ways")


def _shades(names: Sequence[str]) -> list[str]:
    """Dark to light by depth; what goes into the first block is grey."""
    import matplotlib
    from matplotlib.colors import to_hex

    colors = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, max(len(names), 2)))
    return [
        GREY if "block" not in name and "layer" not in name else to_hex(c)
        for name, c in zip(names, colors, strict=False)
    ]


def _name(name: str, index: int, count: int) -> str:
    return name if count <= _NAMED or index in (0, count - 1) else "_"


def _seeds(models: dict[str, list[Run]]) -> int:
    return max(map(len, models.values()))
