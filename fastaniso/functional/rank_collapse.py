"""How far the rows of a sequence are from all being their mean."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastaniso._version import __version__
from fastaniso.functional.group_stream import Collected, labelled
from fastaniso.result import RankCollapse
from fastaniso.statistics import classes as statistics
from fastaniso.statistics.drift import norms
from fastaniso.statistics.words import check_min_count


def rank_collapse(
    hidden: Any,
    sequences: Any,
    *,
    min_count: int = 2,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> RankCollapse:
    """Residual √(1 − T‖x̄‖²/‖X‖_F²) = ‖X − 1x̄ᵀ‖_F/‖X‖_F of each sequence X of T rows, averaged over sequences.

    From 0, where all rows of a sequence are one vector, to 1, where their mean is zero (Dong et al. 2021: the residual
    over the length of X, here in the Frobenius norm). From differences to the mean in float64, so that a sequence near
    collapse keeps its digits; O(n d), in two reads. A sequence of one row has the value 0: those below
    ``min_count`` rows stay out of the mean. ``sequences`` are integer labels ``[...]``; other arguments as for
    ``self_similarity``.
    """
    check_min_count(min_count, least=1)
    rows = labelled(
        hidden,
        sequences,
        mask,
        name="sequences",
        backend=backend,
        invalid=invalid,
        memory_limit=memory_limit,
        raw=True,
    )
    found, residuals = Collected(rows.distinct, 2), statistics.Residuals()
    # The largest norm is divided out, so that squares stay within float64.
    scale = float(norms(rows.moments)[3]) if rows.n else 1.0
    for block, labels in rows.blocks():
        told = statistics.about_means(block.values.double() / scale, block.mask, labels)
        if told is not None:
            found.add(*residuals.add(*told))
    if rows.n:
        found.add(*residuals.end())
    counts, values = found.columns
    chosen = counts >= min_count
    return RankCollapse(
        mean=float(values[chosen].mean()) if chosen.any() else math.nan,
        sequences=int(chosen.sum()),
        min_count=min_count,
        n=rows.n,
        dim=rows.rows.dim,
        dropped=rows.dropped,
        provenance=tuple(sorted(rows.moments.provenance)),
        version=__version__,
        labels=found.labels,
        counts=counts.astype(np.int64),
        values=values,
    )
