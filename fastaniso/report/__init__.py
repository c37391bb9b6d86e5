"""Pictures of results. matplotlib is imported when one is drawn."""

from fastaniso.report.layers import plot_layers
from fastaniso.report.pairs import plot_pairs
from fastaniso.report.site import plot_site
from fastaniso.report.subsamples import plot_subsamples

__all__ = ["plot_layers", "plot_pairs", "plot_site", "plot_subsamples"]
