"""Statistics of the queries and keys of heads (Godey et al. 2024, §4 and §5), from linear sums."""

from __future__ import annotations

import torch
from torch import Tensor

from fastaniso.result import Dropped, HeadVectors, QueriesKeys
from fastaniso.state import HeadMoments
from fastaniso.statistics import cosine
from fastaniso.statistics.drift import drift, norms
from fastaniso.statistics.host import dropped_rows


def describe_queries_keys(
    queries: HeadMoments, keys: HeadMoments, *, scale: float, position: str, invalid: str, name: str
) -> QueriesKeys:
    """Drift and mean cosine of queries and of keys by head, and their means against each other.

    cos(Q̄, K̄) and scale·Q̄·K̄ are of each head of queries with the head of keys that it reads, h // (H / G); float64.
    Rows that cannot be normalised raise ``InvalidRowsError`` if ``invalid="raise"``, and are told by ``name``.
    """
    queries, keys = queries.to("cpu"), keys.to("cpu")
    mean_query, mean_key = _means(queries), _means(keys)
    read = mean_key.repeat_interleave(queries.heads // keys.heads, 0)
    products = torch.linalg.vecdot(mean_query, read)
    lengths = torch.linalg.vector_norm(mean_query, dim=1) * torch.linalg.vector_norm(read, dim=1)
    return QueriesKeys(
        position=position,
        queries=_describe(queries, invalid, f"{name} queries"),
        keys=_describe(keys, invalid, f"{name} keys"),
        cosine_of_means=tuple(cosine.ratio(products, lengths).tolist()),
        score_of_means=tuple((scale * products).tolist()),
    )


def _describe(state: HeadMoments, invalid: str, name: str) -> HeadVectors:
    heads = [state.head(number) for number in range(state.heads)]
    dropped = [dropped_rows(head.counts.numpy(), invalid, name=f"{name} of head {i}") for i, head in enumerate(heads)]
    drifts = torch.stack([drift(head) for head in heads])
    return HeadVectors(
        heads=state.heads,
        dim=state.dim,
        n=int(state.counts[:, 0].min()),
        dropped=Dropped(
            masked=dropped[0].masked, zero=sum(d.zero for d in dropped), nonfinite=sum(d.nonfinite for d in dropped)
        ),
        mean_cosine=tuple(float(cosine.mean(head)) for head in heads),
        norm_of_mean=tuple(drifts[:, 0].tolist()),
        relative=tuple(drifts[:, 1].tolist()),
        unit=tuple(drifts[:, 2].tolist()),
        mean_norm=tuple(float(norms(head)[0]) for head in heads),
    )


def _means(state: HeadMoments) -> Tensor:
    """Mean row of each head (H, d); nan where there is none."""
    return cosine.ratio(state.sums[:, 0], state.counts[:, :1])
