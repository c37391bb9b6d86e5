"""Queries and keys of the heads of one attention."""

from __future__ import annotations

from dataclasses import dataclass

from fastaniso.result.base import Dropped, Result


@dataclass(frozen=True)
class HeadVectors(Result):
    """Queries, or keys, of each head as rows; every tuple has one value a head.

    ``dropped``: masked rows are the same of all heads, zero and non-finite ones are counted over all of them.
    """

    heads: int
    dim: int
    n: int
    dropped: Dropped
    mean_cosine: tuple[float, ...]
    norm_of_mean: tuple[float, ...]
    relative: tuple[float, ...]
    unit: tuple[float, ...]
    mean_norm: tuple[float, ...]

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "mean_cosine": "over the n(n-1) ordered pairs i != j of the rows of a head",
        "norm_of_mean": "drift |mean|, in units of the rows",
        "relative": "drift without scale |mean| / E|x|",
        "unit": "drift without scale |mean of x/|x||",
        "mean_norm": "E|x|",
    }


@dataclass(frozen=True)
class QueriesKeys(Result):
    """Queries against keys of H heads, and both as rows; head h reads keys h // (H / G) of G.

    ``position`` says where they were taken: ``"after rotation"`` as the attention scores them, ``"before rotation"``
    as the projections (and the norms behind them) give them, ``"no rotation"`` where these are the same, and
    ``"as attended"`` where it is not known whether positions were turned into them.
    """

    position: str
    queries: HeadVectors
    keys: HeadVectors
    cosine_of_means: tuple[float, ...]
    score_of_means: tuple[float, ...]

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "cosine_of_means": "cos(mean query, mean key), signed, of each head of queries",
        "score_of_means": "scale * mean query . mean key, of each head of queries",
        "absolute_cosine_of_means": "mean over heads of |cosine_of_means|",
    }

    @property
    def absolute_cosine_of_means(self) -> float:
        """Mean over heads of |cos(Q̄, K̄)|, where signs of heads would cancel."""
        return sum(map(abs, self.cosine_of_means)) / len(self.cosine_of_means)
