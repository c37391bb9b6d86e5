"""Beside the paper: embedding tables, raw and centred, and states before and after the final norm."""

from fastaniso.paper.counterpoint.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
