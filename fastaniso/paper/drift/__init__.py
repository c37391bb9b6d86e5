"""Figure 5: whether the drift of the mean goes with the mean cosine over the layers of a model."""

from fastaniso.paper.drift.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
