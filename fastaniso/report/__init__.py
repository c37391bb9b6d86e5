"""Pictures of results. matplotlib is imported when one is drawn, and plotly's script read when a page is made."""

from fastaniso.report.heads import plot_heads
from fastaniso.report.html import stylesheet, to_html
from fastaniso.report.layers import plot_layers
from fastaniso.report.pairs import plot_pairs
from fastaniso.report.runs import plot_drift, plot_metric, plot_spectrum, plot_top_dimensions
from fastaniso.report.site import plot_site
from fastaniso.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, figure, label, styled
from fastaniso.report.subsamples import plot_subsamples

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "RED",
    "figure",
    "label",
    "plot_drift",
    "plot_heads",
    "plot_layers",
    "plot_metric",
    "plot_pairs",
    "plot_site",
    "plot_spectrum",
    "plot_subsamples",
    "plot_top_dimensions",
    "styled",
    "stylesheet",
    "to_html",
]
