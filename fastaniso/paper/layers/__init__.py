"""Figures 1 to 4: the mean cosine of hidden states, layer by layer, of models of every modality."""

from fastaniso.paper.layers.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
