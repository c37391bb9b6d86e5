"""What attention says of each head: scores, entropy, softmax rows, the attention to the first keys.

Rows (n, d) stand for ``HEADS`` heads of n / HEADS queries, and in reverse order for their keys.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

import fastaniso
from bench.baselines.contender import Contender
from bench.harness import OURS

HEADS, BINS, SPAN, POSITIONS, BLOCK = 8, 512, 32.0, 64, 256
NAMES = ("score_mean", "score_variance", "entropy", "normalized_entropy", "row_max", "row_median", "row_min")


def heads_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys (1, HEADS, n / HEADS, d): views."""
    queries = x.view(1, HEADS, -1, x.shape[1])
    return queries, x.flip(0).view(queries.shape)


def ours(x: Tensor, *, causal: bool = False) -> Tensor:
    result = fastaniso.attention(*heads_of(x), causal=causal)
    return torch.tensor([getattr(result, name) for name in NAMES], dtype=torch.float64)


def torch_blocks(x: Tensor, *, causal: bool = False, rows: int = BLOCK) -> Tensor:
    """Head by head, some queries at a time: the product, softmax, and each number from them, in float32."""
    queries, keys = heads_of(x)
    heads = []
    for q, k in zip(queries[0].float(), keys[0].float(), strict=True):
        sums = _Sums()
        for start in range(0, len(q), rows):
            seen = min(start + rows, len(k)) if causal else len(k)
            sums.add(q[start : start + rows] @ k[:seen].T * x.shape[1] ** -0.5, start if causal else None)
        heads.append(sums.means())
    return torch.stack(heads, 1)


def torch_full_maps(x: Tensor, *, causal: bool = False) -> Tensor:
    """All maps at once, as ``output_attentions`` gives them, and each number from them."""
    queries, keys = heads_of(x)
    heads = []
    for scores in queries[0].float() @ keys[0].float().mT * x.shape[1] ** -0.5:
        sums = _Sums()
        sums.add(scores, 0 if causal else None)
        heads.append(sums.means())
    return torch.stack(heads, 1)


class _Sums:
    """Of one head, from blocks of its scores."""

    def __init__(self) -> None:
        self.scores = torch.zeros(3, dtype=torch.float64)
        self.rows = torch.zeros(7, dtype=torch.float64)
        self.histogram, self.outside, self.received = torch.zeros(BINS), torch.zeros(2), torch.zeros(POSITIONS)

    def add(self, scores: Tensor, first: int | None) -> None:
        """Scores of some queries; in causal attention with the place of the first."""
        every, keys = scores, torch.full((len(scores),), scores.shape[1])
        if first is not None:
            future = torch.ones_like(scores, dtype=torch.bool).triu_(first + 1)
            every, keys = scores[~future], torch.arange(first + 1, first + 1 + len(scores))
            scores = scores.masked_fill(future, -torch.inf)
        attention = scores.softmax(1)
        if first is None:
            median, least = attention.median(1).values, attention.amin(1)
        else:
            median = attention.masked_fill(future, torch.nan).nanmedian(1).values
            least = attention.masked_fill(future, torch.inf).amin(1)
        entropy = torch.special.entr(attention).sum(1)
        normalised = torch.where(keys > 1, entropy / keys.clamp(min=2).log(), 0)
        each = (entropy, normalised, attention.amax(1), median, least, torch.ones_like(entropy), (keys > 1).float())
        self.rows += torch.stack([values.sum(dtype=torch.float64) for values in each])
        count = self.rows.new_tensor(every.numel())
        self.scores += torch.stack((every.sum(dtype=torch.float64), every.square().sum(dtype=torch.float64), count))
        self.histogram += torch.histc(every, BINS, -SPAN, SPAN)
        self.outside += torch.stack(((every < -SPAN).sum(), (every > SPAN).sum()))
        first_keys = attention[:, :POSITIONS].sum(0)
        self.received[: len(first_keys)] += first_keys

    def means(self) -> Tensor:
        total, square, count = self.scores
        entropy, normalised, *softmax, rows, several = self.rows
        mean = total / count
        return torch.stack(
            (mean, square / count - mean**2, entropy / rows, normalised / several, *(s / rows for s in softmax))
        )


def exact_attention(x: Tensor, *, causal: bool = False) -> Tensor:
    """The same in float64, of full maps."""
    result = fastaniso.attention(*(vectors.double() for vectors in heads_of(x)), causal=causal, backend="reference")
    return torch.tensor([getattr(result, name) for name in NAMES], dtype=torch.float64)


def error_of_attention(given: Tensor, exact: Tensor) -> float:
    """The largest relative error of a head's mean entropy, and of its mean largest softmax."""
    return float((given[[2, 4]] / exact[[2, 4]] - 1).abs().max())


def _contenders(causal: bool) -> tuple[Contender, ...]:
    return (
        Contender(OURS, functools.partial(ours, causal=causal), "fastaniso"),
        Contender("torch_blocks", functools.partial(torch_blocks, causal=causal), "torch"),
        Contender("torch_full_maps", functools.partial(torch_full_maps, causal=causal), "torch", full_matrix=True),
    )


ATTENTION, CAUSAL_ATTENTION = _contenders(False), _contenders(True)
