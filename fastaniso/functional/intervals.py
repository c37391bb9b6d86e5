"""How sure a value is: intervals over independent groups of rows, and the curve of a metric over growing subsets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastaniso._version import __version__
from fastaniso.functional.group_stream import Collected, labelled
from fastaniso.ops import dispatch as ops
from fastaniso.pairing.tiles import gather, kept_rows
from fastaniso.result import Interval, MeanCosineInterval, SubsampleCurve
from fastaniso.rows import Rows, as_rows
from fastaniso.sampling.estimate import student
from fastaniso.state import Gram, Moments
from fastaniso.statistics import jackknife
from fastaniso.statistics.catalogue import Asked, asked_for
from fastaniso.statistics.host import check_invalid_option, dropped_rows, to_host
from fastaniso.statistics.metric import RAW, UNIT, States

_FEWEST_GROUPS = 3
_SMALLEST, _MOST_SIZES = 16, 8  # of the sizes that are chosen
_GATHERED = 2**20  # numbers of the rows of a subset that are gathered at once


def mean_cosine_interval(
    hidden: Any,
    groups: Any,
    *,
    across: bool = False,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> MeanCosineInterval:
    """Mean cosine over the ordered pairs i ≠ j with its 95 % confidence interval over independent groups of rows.

    Tokens of one text are not independent, texts are: the jackknife leaves each of G groups out in turn,
    SE² = (G−1)/G·Σ(θ_g − θ̄)² (Efron & Stein 1981), and the interval is θ ± t·SE, t of G − 1 degrees of freedom. It is
    about other groups of the same kind, sizes included; the value itself is exact for these rows. From sums of
    each group, O(n d), memory as of ``self_similarity``.

    ``across=True`` takes the pairs of rows of two groups only: what a larger corpus tends to, where pairs within a text
    are too few to count. An interval that takes every row for a draw of its own is too short where rows of a group are
    alike, and one that takes every *pair* for a draw has no meaning: pairs share rows. nan of fewer than 3 groups.
    ``groups`` are integer labels ``[...]``, any values; other arguments as for ``self_similarity``.
    """
    rows = labelled(hidden, groups, mask, name="groups", backend=backend, invalid=invalid, memory_limit=memory_limit)
    found = Collected(rows.distinct, len(jackknife.Grouped._fields))
    for sums in rows.groups():
        found.add(sums.labels, *jackknife.grouped(sums.moments, rows.moments))
    each = jackknife.Grouped(*torch.from_numpy(found.columns).unbind())
    left_out = jackknife.left_out(each, rows.moments.to("cpu"), across=across)
    values, error = to_host(left_out, jackknife.standard_error(left_out[1:]))
    mean, spread = float(values[0]), float(error[0]) if len(found.labels) >= _FEWEST_GROUPS else math.nan
    half = float(student(len(found.labels) - 1)) * spread
    return MeanCosineInterval(
        mean=mean,
        interval=Interval(mean - half, mean + half),
        standard_error=spread,
        groups=len(found.labels),
        across=across,
        n=rows.n,
        dim=rows.rows.dim,
        dropped=rows.dropped,
        provenance=tuple(sorted(rows.moments.provenance)),
        version=__version__,
        labels=found.labels,
        without=values[1:],
    )


def subsample_curve(
    hidden: Any,
    metric: str | tuple[str, Mapping[str, Any]] = "mean_cosine",
    *,
    sizes: Sequence[int] | None = None,
    repeats: int = 8,
    seed: int = 0,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
) -> SubsampleCurve:
    """A metric of growing random subsets of the rows, ``repeats`` disjoint ones of each size: is n enough?

    Where the curve is still moving at its end (spectral scores of few rows a dimension rise with n), or the spread is
    as large as what is to be told apart, it is not. Subsets of one size have no row in common, so that their spread is
    that of independent draws of rows; at n it is expected to be √(size/n) of the last, ``expected_std``. Rows are
    drawn one by one: of tokens of a few texts it tells nothing about other texts, ``mean_cosine_interval`` does.
    Subsets drawn anew for each repeat, as is common, overlap more the larger they are, and seem to agree.

    Args:
        hidden: ``[..., d]`` float32, float64, float16 or bfloat16: tensor, NumPy array or anything with DLPack.
        metric: One number of linear or second-moment sums, as ``fastaniso.metrics()`` lists them: "mean_cosine",
            "isoscore", …, or (name, options).
        sizes: Rows of a subset, at most n/repeats; by default halved from there on, down to 16 rows.
        repeats: Subsets of each size, 2 or more.
        seed: Of the random order of the rows.
        mask: Bool ``[...]``, True keeps a row.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" refuses rows that are zero or hold NaN or Inf; "omit" leaves them out.

    Returns:
        O(n d) beside the metric's own cost, 24 bytes a row and a block of rows.
    """
    check_invalid_option(invalid)
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 2:
        raise ValueError(f"repeats: expected an int of at least 2, got {repeats!r}")
    (asked,) = asked_for([metric], (RAW, UNIT), who="subsample_curve")
    rows = as_rows(hidden, mask)
    whole = _state(rows, asked, backend)
    (counts,) = to_host(whole.counts)
    dropped, n = dropped_rows(counts, invalid), int(counts[0])
    of_all = _value(asked, whole)
    checked = _checked_sizes(sizes, n, repeats)
    kept = kept_rows(rows, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(rows.values.device)
    order = order if kept is None else kept[order]
    curves = [_growing(rows, part, checked, asked, backend) for part in order[: repeats * checked[-1]].chunk(repeats)]
    *found, value = to_host(*(torch.stack(curve) for curve in curves), of_all)
    values = np.stack(found, axis=1)
    stds = values.std(axis=1, ddof=1)
    return SubsampleCurve(
        metric=asked.label,
        value=float(value[0]),
        expected_std=float(stds[-1]) * math.sqrt(checked[-1] / n),
        sizes=checked,
        means=tuple(values.mean(axis=1).tolist()),
        stds=tuple(stds.tolist()),
        repeats=repeats,
        seed=seed,
        n=n,
        dim=rows.dim,
        dropped=dropped,
        convention=asked.convention,
        provenance=tuple(sorted(whole.provenance)),
        version=__version__,
        values=values,
    )


def _checked_sizes(sizes: Sequence[int] | None, n: int, repeats: int) -> tuple[int, ...]:
    most = n // repeats
    if most < 2:
        raise ValueError(
            f"hidden: expected at least {2 * repeats} rows that count, 2 for each of {repeats} repeats, got {n}; "
            "ask for fewer repeats"
        )
    if sizes is None:
        halved = [most >> halvings for halvings in range(_MOST_SIZES)]
        return tuple(sorted(size for size in halved if size >= _SMALLEST or size == most))
    checked = tuple(sorted(sizes))
    if not checked or any(isinstance(size, bool) or not isinstance(size, int) for size in checked):
        raise ValueError(f"sizes: expected ints, got {list(sizes)}")
    if checked[0] < 2 or checked[-1] > most or len(set(checked)) < len(checked):
        raise ValueError(
            f"sizes: expected different sizes from 2 to {most} ({n} rows over {repeats} repeats), got {list(sizes)}"
        )
    return checked


def _growing(rows: Rows, order: Tensor, sizes: tuple[int, ...], asked: Asked, backend: str) -> list[Tensor]:
    """The metric of the first rows in order, as many as each of the sizes."""
    at_once = max(_GATHERED // rows.dim, 1)
    state: Moments | Gram | None = None
    values = []
    for start, stop in itertools.pairwise((0, *sizes)):
        for part in torch.split(order[start:stop], at_once):
            more = _state(gather(rows, part), asked, backend)
            state = more if state is None else state.merge(more)  # type: ignore[arg-type]  # both of one kind
        assert state is not None
        values.append(_value(asked, state))
    return values


def _state(rows: Rows, asked: Asked, backend: str) -> Moments | Gram:
    if not asked.needs:
        return ops.moments(rows, backend=backend)
    return ops.gram(rows, raw=RAW in asked.needs, unit=UNIT in asked.needs, backend=backend)


def _value(asked: Asked, state: Moments | Gram) -> Tensor:
    assert asked.metric.value is not None
    value = asked.metric.value(States(state), asked.options)
    if not isinstance(value, Tensor):
        raise ValueError(
            f"metric: {asked.label!r} is several numbers ({', '.join(value)}), and a curve is of one; ask for another"
        )
    return value
