"""A metric over the number of rows: where it settles, and how far subsets of one size lie apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastaniso.report.style import BLUE, GREY, RED, figure, label, styled, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastaniso.result import SubsampleCurve


def plot_subsamples(curve: SubsampleCurve) -> Figure:
    """Each growing subset, their mean and spread, and the value of all rows."""
    with styled():
        drawn = figure(6.5, 4)
        axes = drawn.subplots()
        sizes, means, stds = (np.asarray(each) for each in (curve.sizes, curve.means, curve.stds))
        axes.plot(sizes, curve.values, color=GREY, linewidth=0.7, alpha=0.6)
        axes.fill_between(sizes, means - stds, means + stds, color=BLUE, alpha=0.2, linewidth=0, label="mean ± std")
        axes.plot(sizes, means, color=BLUE, marker="o")
        axes.errorbar([curve.n], [curve.value], [curve.expected_std], fmt="o", color=RED, capsize=3, label="all rows")
        axes.axhline(curve.value, color=RED, linestyle="--", linewidth=1)
        axes.set_xscale("log")
        label(axes, f"{curve.metric} of subsets", "rows", curve.metric)
        axes.legend(loc="best")
        title(drawn, "; ".join(curve.provenance), f"{curve.n:,} rows of {curve.dim} numbers; seed {curve.seed}")
    return drawn
