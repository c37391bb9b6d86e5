"""The measurements as pictures: cosine and norm, histograms of the scores, the softmax, queries and keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastaniso.paper.experiment import Measured, Picture
from fastaniso.paper.untrained_block.block import KINDS
from fastaniso.paper.untrained_block.curves import Curves, apart, curves, norms_of
from fastaniso.report import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, figure, label, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {"bert": BLUE, "gpt2": GREEN, "llama": PURPLE}
BIAS = "norm N of the common bias"


def draw(measured: Measured) -> Sequence[Picture]:
    """Lines are means over seeds, bands go from the least to the most of the seeds."""
    with styled():
        return (_cosine_and_norm(measured), _histograms(measured), _softmax(measured), _queries_keys(measured))


def _cosine_and_norm(measured: Measured) -> Picture:
    drawn = figure(10, 3.6)
    cosine, ratio, norm = drawn.subplots(1, 3)
    given = ("input", GREY, "-", curves(measured, "bert", "input", "cosine"))
    lines = [given]
    for kind, about in KINDS.items():
        lines.append((about.title, COLORS[kind], "-", curves(measured, kind, "output", "cosine")))
    lines.append(("BERT without attention", ORANGE, "--", curves(measured, "bert", "without_attention", "cosine")))
    for name, color, style, values in lines:
        _band(cosine, measured, values, name, color, style)
    for kind, about in KINDS.items():
        _band(ratio, measured, apart(measured, kind), about.title, COLORS[kind])
    _band(ratio, measured, apart(measured, "bert", "without_attention"), "BERT without attention", ORANGE, "--")
    _band(norm, measured, curves(measured, "bert", "input", "norm"), "input", GREY)
    for kind, about in KINDS.items():
        _band(norm, measured, curves(measured, kind, "output", "norm"), about.title, COLORS[kind])
    root = measured["dim"] ** 0.5
    norm.axvline(root, color=GREY, linewidth=0.8, linestyle=":")
    norm.text(root * 1.15, 0.75, f"√{measured['dim']}", color=GREY, fontsize=8)
    ratio.axhline(1.0, color=GREY, linewidth=0.8, linestyle=":")
    ratio.set_ylim(bottom=0)
    norm.set_yscale("log")
    label(cosine, "Mean cosine", BIAS, "mean cosine of all rows")
    label(ratio, "Distance to one that is left", BIAS, "(1 − cosine out) / (1 − cosine in)")
    label(norm, "Norm", BIAS, "mean norm of the rows")
    # Past a bias of a thousand cosines are one and norms their own: the change is all before.
    for axes in (cosine, ratio, norm):
        _over_bias(axes, measured, most=1e3)
    norm.set_ylim(0.4, 1.5e3)
    handles, names = cosine.get_legend_handles_labels()
    drawn.legend(handles, names, loc="outside lower center", ncols=len(names))
    return Picture(
        "cosine-and-norm",
        "Left: mean cosine before and after one untrained block, over the norm of a bias that all embeddings share. "
        "Middle: how much of the distance to a cosine of one is left; below one the block made rows more alike. Right: "
        "norms; only the block that normalises last (BERT) meets its input's, at √d. " + _bands(measured),
        drawn,
    )


def _histograms(measured: Measured) -> Picture:
    shown = measured["histograms"]
    drawn = figure(10, 4.4)
    panels = drawn.subplots(2, len(shown), squeeze=False)
    for column, one in enumerate(shown):
        for row, (what, color) in enumerate((("scores", BLUE), ("centered", RED))):
            power, unit = _unit(max(map(abs, one[what]["edges"])))
            edges, density = np.array(one[what]["edges"]) / power, np.array(one[what]["density"])
            axes = panels[row, column]
            axes.stairs(density, edges, fill=True, color=color, alpha=0.8)
            reach = max(abs(edges[0]), abs(edges[-1]))
            axes.set_xlim(-1.05 * reach, 1.05 * reach)
            axes.set_yticks([])
            axes.grid(False)
            axes.locator_params(axis="x", nbins=5)
            name = f"score{unit}" if row == 0 else f"score less its row's mean{unit}"
            label(axes, f"N = {one['norm']:g}" if row == 0 else "", name, "density" if column == 0 else "")
    return Picture(
        "scores",
        "Scores before the softmax of an untrained BERT block, all heads together, each panel with an axis of its own. "
        "Above: as they are; a strong bias gives each head a constant of its own, here a peak. Below: less the mean of "
        f"the row, which is all that the softmax sees. Seed {measured['seeds'][0]}, {measured['sequences']['bert']} "
        f"sequences of {measured['length']} embeddings.",
        drawn,
    )


def _softmax(measured: Measured) -> Picture:
    drawn = figure(10, 3.6)
    spread, softmax, entropy = drawn.subplots(1, 3)
    for kind, about in KINDS.items():
        _band(spread, measured, curves(measured, kind, "scores", "std"), f"{about.title}, all", COLORS[kind])
        row = curves(measured, kind, "scores", "row_std")
        _band(spread, measured, row, f"{about.title}, within a row", COLORS[kind], "--")
        _band(entropy, measured, curves(measured, kind, "scores", "entropy"), about.title, COLORS[kind])
    for name, color in (("max", RED), ("median", ORANGE), ("min", GREY)):
        mean = curves(measured, "bert", "scores", name, "mean")
        softmax.plot(norms_of(measured), mean.mean(0), color=color, label=name)
        ends = [curves(measured, "bert", "scores", name, end) for end in ("least_head", "most_head")]
        softmax.fill_between(norms_of(measured), ends[0].min(0), ends[1].max(0), color=color, alpha=0.18, linewidth=0)
        sequences = [curves(measured, "bert", "scores", name, f"{end}_sequence") for end in ("least", "most")]
        softmax.fill_between(
            norms_of(measured), sequences[0].min(0), sequences[1].max(0), color=color, alpha=0.35, linewidth=0
        )
    softmax.axhline(1 / measured["length"], color=GREY, linewidth=0.8, linestyle=":")
    softmax.set_yscale("log")
    softmax.set_ylim(1e-7, 1.5)
    spread.set_yscale("log")
    label(spread, "Spread of the scores", BIAS, "standard deviation")
    label(softmax, "Softmax of a row (BERT)", BIAS, "softmax, mean over rows")
    label(entropy, "Entropy of a row", BIAS, "entropy / log(keys seen)")
    for axes in (spread, softmax, entropy):
        _over_bias(axes, measured)
        axes.legend(loc="best")
    return Picture(
        "softmax",
        "Left: spread of all scores, and within a row. Middle: largest, median and least softmax of a row; the dark "
        "band goes from the least to the most of all sequences, the light one of the heads of each; dotted: uniform "
        "attention. Right: entropy, one for uniform attention; GPT-2 and Llama see earlier tokens only. "
        + _bands(measured),
        drawn,
    )


def _queries_keys(measured: Measured) -> Picture:
    drawn = figure(10, 3.6)
    panels = drawn.subplots(1, 2)
    for axes, quantity in zip(panels, ("cosine", "norm"), strict=True):
        for kind, about in KINDS.items():
            queries, keys = (curves(measured, kind, name, quantity) for name in ("queries", "keys"))
            # BERT's lies under GPT-2's: as a wide line it is seen.
            _band(
                axes, measured, queries, f"{about.title}, queries", COLORS[kind], width=4.0 if kind == "bert" else 1.6
            )
            hollow = {"markerfacecolor": "none", "label": f"{about.title}, keys"}
            axes.plot(norms_of(measured), keys.mean(0), "o", color=COLORS[kind], **hollow)
        _over_bias(axes, measured)
    panels[1].set_yscale("log")
    label(panels[0], "Mean cosine of queries and of keys", BIAS, "mean cosine within a head")
    label(panels[1], "Norm of queries and keys", BIAS, "mean norm within a head")
    handles, names = panels[0].get_legend_handles_labels()
    drawn.legend(handles, names, loc="outside right center")
    return Picture(
        "queries-keys",
        "Queries and keys as they enter the scores, means over heads; Llama's after rotary positions, which part what "
        "the bias made alike. " + _bands(measured),
        drawn,
    )


def _band(
    axes: Axes, measured: Measured, values: Curves, name: str, color: str, style: str = "-", width: float = 1.6
) -> None:
    axes.plot(norms_of(measured), values.mean(0), style, color=color, label=name, linewidth=width)
    axes.fill_between(norms_of(measured), values.min(0), values.max(0), color=color, alpha=0.18, linewidth=0)


def _over_bias(axes: Axes, measured: Measured, most: float | None = None) -> None:
    """A logarithmic axis that begins at 0."""
    norms = norms_of(measured)
    axes.set_xscale("symlog", linthresh=norms[1], linscale=0.4)
    last = norms[-1] if most is None else most
    axes.set_xlim(0, last)
    powers = range(math.ceil(math.log10(norms[1])), math.floor(math.log10(last)) + 1)
    names = (f"{10.0**power:g}" if power < 4 else _ten_to(power) for power in powers)
    axes.set_xticks([0, *(10.0**power for power in powers)], ["0", *names])
    axes.minorticks_off()


def _unit(reach: float) -> tuple[float, str]:
    """The power of ten that numbers up to ``reach`` are told in, and how an axis says so."""
    power = math.floor(math.log10(reach))
    return (1.0, "") if -1 <= power < 3 else (10.0**power, f" / {_ten_to(power)}")


def _ten_to(power: int) -> str:
    return "10" + str(power).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))


def _bands(measured: Measured) -> str:
    counts = measured["sequences"]
    others = {counts["gpt2"], counts["llama"]} - {counts["bert"]}
    said = f"Means over {len(measured['seeds'])} seeds, bands from the least to the most; {counts['bert']} sequences"
    said += f" ({', '.join(map(str, sorted(others)))} for GPT-2 and Llama)" if others else ""
    return f"{said} of {measured['length']} embeddings, d = {measured['dim']}."
