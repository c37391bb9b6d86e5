"""Frozen results: plain numbers on the host, with what they were made from. nan: undefined; None: not asked for."""

from fastaniso.result.base import Dropped, Result, json_ready
from fastaniso.result.description import Description, DimensionContributions, Drift, GroupCosine, Norms, TopDimensions

__all__ = [
    "Description",
    "DimensionContributions",
    "Drift",
    "Dropped",
    "GroupCosine",
    "Norms",
    "Result",
    "TopDimensions",
    "json_ready",
]
