"""Statistics of rows that lie in shares on the ranks of a process group: states merged, all pairs by a ring.

Every function is collective: each rank calls it with its own rows, and none returns before all have called. A mistake
on one rank raises on all.
"""

from fastaniso.distributed.exchange import RankError, merge
from fastaniso.distributed.statistics import describe, nearest_neighbors, pairs

__all__ = ["RankError", "describe", "merge", "nearest_neighbors", "pairs"]
