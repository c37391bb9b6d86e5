"""The entries of the catalogue, one file a structure."""

from fastaniso.statistics.entries import gram, groups, linear, neighbors, pairs, second_pass

ENTRIES = (
    *linear.ENTRIES,
    *gram.ENTRIES,
    *pairs.ENTRIES,
    *neighbors.ENTRIES,
    *second_pass.ENTRIES,
    *groups.ENTRIES,
)

__all__ = ["ENTRIES"]
