"""Queries, keys and hidden states while a model is trained: small language models of our own, or any checkpoints."""

from fastaniso.paper.training.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
