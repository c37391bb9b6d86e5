"""The entries of the catalogue, one file a structure."""

from fastaniso.statistics.entries import gram, groups, linear, neighbors, pairs

ENTRIES = (*linear.ENTRIES, *gram.ENTRIES, *pairs.ENTRIES, *neighbors.ENTRIES, *groups.ENTRIES)

__all__ = ["ENTRIES"]
