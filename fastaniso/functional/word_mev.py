"""How much of a word's occurrences one vector can stand for: MEV of each word, whatever the number of words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastaniso._version import __version__
from fastaniso.functional.group_stream import LabelledRows, labelled
from fastaniso.ops import dispatch as ops
from fastaniso.pairing.tiles import gather, kept_rows
from fastaniso.result import WordMEV
from fastaniso.statistics import spectrum
from fastaniso.statistics import words as statistics
from fastaniso.statistics.host import to_host

_NUMBERS = 2**19  # of occurrences held in float64 at once
_NUMBERS_ON_A_GPU = 2**24


def word_mev(
    hidden: Any,
    words: Any,
    *,
    min_count: int = 2,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> WordMEV:
    """Maximum explainable variance of a word, σ₁²/Σσ² of the *uncentred* rows of its occurrences, averaged over words.

    From 1/min(n_w, d) to 1; 1 of a single occurrence (Ethayarajh 2019). With it the baseline of random words: σ₁²/Σσ²
    of all rows together (``mev``), which published code takes from a sample of words. A word of few occurrences has at
    least 1/n_w, however random: the adjusted value of rare words is above 0 in an isotropic space, and Ethayarajh
    counts words of 5 or more contexts (``min_count=5``). O(n d min(n_w, d)) and an eigendecomposition a word, float64;
    memory is that of a block of rows and d² numbers, and a few numbers a row and a word.

    Known wrong: the paper's code centres the occurrences (scikit-learn's PCA), which is another number: see ``mev``.
    Arguments as for ``self_similarity``.
    """
    statistics.check_min_count(min_count)
    rows = labelled(
        hidden, words, mask, name="words", backend=backend, invalid=invalid, memory_limit=memory_limit, squares=5
    )
    order = _in_order(rows)
    labels, counts = torch.unique_consecutive(rows.labels[order], return_counts=True)
    values = torch.empty(len(labels), dtype=torch.float64, device=order.device)
    for chosen, occurrences in _words_of_like_count(rows, order, counts):
        values[chosen] = occurrences
    gram = ops.gram(rows.rows, raw=True, unit=False, backend=backend)
    (baseline,) = to_host(spectrum.mev_of(spectrum.Spectra(gram)))
    found, of_words = values.cpu().numpy(), counts.cpu().numpy()
    enough = of_words >= min_count
    mean = float(found[enough].mean()) if enough.any() else math.nan
    return WordMEV(
        mean=mean,
        adjusted=mean - float(baseline[0]),
        baseline=float(baseline[0]),
        words=int(enough.sum()),
        types=len(found),
        min_count=min_count,
        n=rows.n,
        dim=rows.rows.dim,
        dropped=rows.dropped,
        provenance=tuple(sorted(rows.moments.provenance)),
        version=__version__,
        labels=labels.cpu().numpy(),
        counts=of_words.astype(np.int64),
        values=found,
    )


def _in_order(rows: LabelledRows) -> Tensor:
    """Indices of the rows that count, in order of their labels."""
    kept = kept_rows(rows.rows, rows.n)
    if rows.order is None:
        return torch.arange(rows.n, device=rows.labels.device) if kept is None else kept
    if kept is None or len(kept) == len(rows.order):
        return rows.order
    counts = torch.zeros(rows.rows.count, dtype=torch.bool, device=kept.device).index_fill_(0, kept, True)
    return rows.order[counts[rows.order]]


def _words_of_like_count(rows: LabelledRows, order: Tensor, counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Places of some words and their values, until all are told: words of about one count side by side.

    A word of up to d occurrences needs their products, one of more their second moments.
    """
    dim = rows.rows.dim
    begins = counts.cumsum(0) - counts
    by_count = counts.argsort(stable=True)
    small = int((counts <= dim).sum())
    numbers = _NUMBERS if order.device.type == "cpu" else _NUMBERS_ON_A_GPU
    first = 0
    while first < small:
        # The last of them is the longest: as many as fit at its count, found by trying fewer.
        several = small - first
        while several > 1 and several * int(counts[by_count[first + several - 1]]) * dim > numbers:
            several //= 2
        chosen = by_count[first : first + several]
        yield chosen, statistics.mev_of_groups(*_side_by_side(rows, order, begins[chosen], counts[chosen]))
        first += several
    for place in by_count[small:].tolist():
        begin, count = int(begins[place]), int(counts[place])
        parts = torch.split(order[begin : begin + count], max(numbers // dim, 1))
        moments = statistics.second_moments((gather(rows.rows, part).values[0] for part in parts), dim, order.device)
        yield by_count.new_tensor([place]), spectrum.top_share(moments)[None]


def _side_by_side(rows: LabelledRows, order: Tensor, begins: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Occurrences (g, most, d) of g words, and which of them there are (g, most)."""
    place = torch.arange(int(counts.max()), device=order.device)
    there = place < counts[:, None]
    indices = order[(begins[:, None] + place).masked_fill(~there, 0)]
    return gather(rows.rows, indices.flatten()).values.view(*there.shape, -1), there
