"""Words in contexts, tokens in sentences, rows in sequences: similarity within, between, and less a baseline.

All from sums by group, one group after another: no pair is formed, and memory is that of a block of rows and a few
numbers a row and a group, whatever the number of groups.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastaniso._version import __version__
from fastaniso.functional.group_stream import Collected, LabelledRows, labelled
from fastaniso.ops import dispatch as ops
from fastaniso.pairing.tiles import gather, kept_rows
from fastaniso.result import IntraSentenceSimilarity, SelfSimilarity, SequenceCosine
from fastaniso.state import Moments
from fastaniso.statistics import cosine
from fastaniso.statistics import words as statistics
from fastaniso.statistics.host import to_host

_INSTANCES = 2**20  # numbers of the rows drawn that are gathered at once


def self_similarity(
    hidden: Any,
    words: Any,
    *,
    min_count: int = 2,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> SelfSimilarity:
    """Mean cosine over the ordered pairs i ≠ j of the occurrences of a word, averaged over words (SelfSim).

    (‖s_w‖² − Σ‖u‖²)/(n_w(n_w−1)) of each word, s_w = Σu over its occurrences; in [−1/(n_w−1), 1] (Ethayarajh 2019;
    intra-cosine, Cai et al. 2021). With it the baseline of random words, exactly: the mean cosine over all pairs of
    rows, which published code estimates from a sample; and the mean cosine between types (``inter_cosine``). O(n d).

    A word of one occurrence has no pair (nan). Code that leaves the diagonal in the mean of a word's cosine matrix adds
    (1 − SelfSim)/n_w, which is most for rare words. Ethayarajh counts words of 5 or more contexts: ``min_count=5``.

    Args:
        hidden: ``[..., d]`` float32, float64, float16 or bfloat16: tensor, NumPy array or anything with DLPack.
        words: Integer label of the word of each row, ``[...]``, any values.
        min_count: Occurrences, 2 or more, that a word needs to count in the mean.
        mask: Bool ``[...]``, True keeps a row: leave out padding and special tokens.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" refuses rows that are zero or hold NaN or Inf; "omit" leaves them out.
        memory_limit: ``MemoryError`` before the run if it takes more beside the input (bytes, or such as "2 GB").
    """
    statistics.check_min_count(min_count)
    rows = labelled(hidden, words, mask, name="words", backend=backend, invalid=invalid, memory_limit=memory_limit)
    found = Collected(rows.distinct, 2)
    mean_sum, mean_squares = torch.zeros_like(rows.moments.sums[0]), torch.zeros_like(rows.moments.totals[0])
    for sums in rows.groups():
        found.add(sums.labels, sums.moments.counts, cosine.group_means(sums.moments))
        more, squares = statistics.instance_sums(sums.moments)
        mean_sum, mean_squares = mean_sum + more, mean_squares + squares
    counts, values = found.columns
    baseline, inter = to_host(
        cosine.mean(rows.moments), statistics.between_instances(mean_sum, mean_squares, len(found.labels))
    )
    chosen = counts >= min_count
    mean = _mean(values[chosen])
    return SelfSimilarity(
        mean=mean,
        adjusted=mean - float(baseline[0]),
        baseline=float(baseline[0]),
        inter=float(inter[0]),
        words=int(chosen.sum()),
        types=len(found.labels),
        min_count=min_count,
        **_common(rows, found),
    )


def inter_cosine(
    hidden: Any,
    words: Any,
    *,
    seed: int | None = None,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """Mean cosine over the ordered pairs of different types, one occurrence of each (inter-cosine, Cai et al. 2021).

    Exactly, the expectation over which occurrence is drawn (``seed=None``): (‖Σū_w‖² − Σ‖ū_w‖²)/(W(W−1)), ū_w the mean
    of a word's unit rows. With a ``seed``, of one occurrence a type drawn at random, as published. In [−1/(W−1), 1];
    every type counts once, so frequent words do not dominate as in ``mean_cosine``. O(n d). nan of fewer than two
    types. Other arguments as for ``self_similarity``.
    """
    rows = labelled(hidden, words, mask, name="words", backend=backend, invalid=invalid, memory_limit=memory_limit)
    if seed is not None:
        (value,) = to_host(cosine.mean(_drawn(rows, seed)))
        return float(value[0])
    types = 0
    mean_sum, mean_squares = torch.zeros_like(rows.moments.sums[0]), torch.zeros_like(rows.moments.totals[0])
    for sums in rows.groups():
        more, squares = statistics.instance_sums(sums.moments)
        mean_sum, mean_squares, types = mean_sum + more, mean_squares + squares, types + len(sums.labels)
    (value,) = to_host(statistics.between_instances(mean_sum, mean_squares, types))
    return float(value[0])


def intra_sentence_similarity(
    hidden: Any,
    sentences: Any,
    *,
    min_count: int = 2,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> IntraSentenceSimilarity:
    """Mean cosine of the tokens of a sentence to their mean row m, averaged over sentences (IntraSim).

    (Σu)·m/(n‖m‖), m = Σx/n: the mean of the rows as they are, not of unit rows (Ethayarajh 2019); in [−1, 1]. From two
    float64 sums a sentence, O(n d). A sentence of one token has the value 1, of any rows: those below ``min_count``
    tokens stay out of the mean. A token is part of its own sentence's mean, so that random rows have about 1/√n, n the
    tokens: the adjusted value of short sentences is above 0 in an isotropic space. ``sentences`` are integer labels
    ``[...]``; other arguments as for ``self_similarity``.
    """
    statistics.check_min_count(min_count, least=1)
    rows = labelled(
        hidden,
        sentences,
        mask,
        name="sentences",
        backend=backend,
        invalid=invalid,
        memory_limit=memory_limit,
        raw=True,
    )
    found = Collected(rows.distinct, 2)
    for sums in rows.groups(raw=True):
        assert sums.raw is not None
        found.add(sums.labels, sums.moments.counts, statistics.to_own_mean(sums.moments, sums.raw))
    counts, values = found.columns
    (baseline,) = to_host(cosine.mean(rows.moments))
    chosen = counts >= min_count
    mean = _mean(values[chosen])
    return IntraSentenceSimilarity(
        mean=mean,
        adjusted=mean - float(baseline[0]),
        baseline=float(baseline[0]),
        sentences=int(chosen.sum()),
        min_count=min_count,
        **_common(rows, found),
    )


def sequence_cosine(
    hidden: Any,
    sequences: Any,
    *,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> SequenceCosine:
    """Mean cosine over the ordered pairs i ≠ j within a sequence, averaged over sequences, and over pairs across them.

    A within that grows with depth while across does not is oversmoothing (Shi et al. 2022); both growing is anisotropy,
    so they are told side by side. (‖s_g‖² − Σ‖u‖²)/(n_g(n_g−1)) within, and (‖Σs_g‖² − Σ‖s_g‖²)/(n² − Σn_g²) across.
    O(n d). ``group_cosine`` gives each pair of sequences, too, in O(G d) memory. nan where there is no pair.
    ``sequences`` are integer labels ``[...]``; other arguments as for ``self_similarity``.
    """
    rows = labelled(
        hidden, sequences, mask, name="sequences", backend=backend, invalid=invalid, memory_limit=memory_limit
    )
    found = Collected(rows.distinct, 2)
    total = torch.zeros_like(rows.moments.sums[0])
    # Σ‖s_g‖² − Σ‖u‖² over the pairs within, Σ‖s_g‖².
    within = torch.zeros(2, dtype=torch.float64, device=total.device)
    own = torch.zeros_like(rows.moments.totals[0])
    for sums in rows.groups():
        found.add(sums.labels, sums.moments.counts, cosine.group_means(sums.moments))
        within += cosine.within_sum_and_pairs(sums.moments)
        own += sums.moments.unit_sum.square().sum()
        total += sums.moments.unit_sum.sum(0)
    counts, values = found.columns
    n = rows.n
    pairs_across = own.new_tensor(n * n - int((counts**2).sum()))
    pooled, across = to_host(cosine.ratio(*within.unbind()), cosine.ratio(total.dot(total) - own, pairs_across))
    chosen = counts >= 2
    return SequenceCosine(
        within=_mean(values[chosen]),
        pooled_within=float(pooled[0]),
        across=float(across[0]),
        sequences=int(chosen.sum()),
        **_common(rows, found),
    )


def _common(rows: LabelledRows, found: Collected) -> dict[str, Any]:
    return {
        "n": rows.n,
        "dim": rows.rows.dim,
        "dropped": rows.dropped,
        "provenance": tuple(sorted(rows.moments.provenance)),
        "version": __version__,
        "labels": found.labels,
        "counts": found.columns[0].astype(np.int64),
        "values": found.columns[1],
    }


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _drawn(rows: LabelledRows, seed: int) -> Moments:
    """Moments of one row of each label, drawn among those that count."""
    device = rows.labels.device
    kept = kept_rows(rows.rows, rows.n)
    kept = torch.arange(rows.n, device=device) if kept is None else kept
    # The first of each label in a random order; the draw is that of the seed on any device.
    shuffled = kept[torch.randperm(rows.n, generator=torch.Generator().manual_seed(seed)).to(device)]
    ordered = shuffled[rows.labels[shuffled].argsort(stable=True)]
    labels = rows.labels[ordered]
    first = torch.ones_like(labels, dtype=torch.bool)
    first[1:] = labels[1:] != labels[:-1]
    state = Moments.empty(rows.rows.dim, device)
    for part in torch.split(ordered[first], max(_INSTANCES // rows.rows.dim, 1)):
        state = state.merge(ops.moments(gather(rows.rows, part), backend=rows.backend))
    return state
