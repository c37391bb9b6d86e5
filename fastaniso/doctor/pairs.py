"""Proof of the ops on pairs: against the full matrix of cosines in float64, for one set and between two."""

from __future__ import annotations

import torch
from torch import Tensor

from fastaniso.doctor.case import ROWS, Case
from fastaniso.ops import dispatch as ops
from fastaniso.state import Neighbors, Pairs

BINS, THRESHOLDS, T = 96, (0.1, 0.3), 2.0
K = 5
_CUT = 203
"""Where the rows are cut in two sets."""


def prove_pairs(case: Case, backend: str) -> tuple[float, bool]:
    """The largest error of a mean over pairs or of an extreme, and whether rounding of the cosines explains all.

    A rounded cosine may be counted in the next bin: so every bin's edge has to have as many pairs below it as there are
    cosines that are certainly below, and no more than there are that may be.
    """
    options = {"bins": BINS, "thresholds": THRESHOLDS, "uniformity_t": (T,), "backend": backend}
    upper = torch.ones(ROWS, ROWS, dtype=torch.bool).triu(1)
    one = ops.pairs(case.rows, **options)  # type: ignore[arg-type]  # each of its own type
    two = ops.pairs(case.part(0, _CUT), case.part(_CUT, ROWS), other_start=_CUT, **options)  # type: ignore[arg-type]
    between = torch.zeros_like(upper)
    between[:_CUT, _CUT:] = True
    errors, right = zip(*(_check_pairs(case, state, of) for state, of in ((one, upper), (two, between))), strict=True)
    return max(errors), all(right)


def _check_pairs(case: Case, state: Pairs, of: Tensor) -> tuple[float, bool]:
    state = state.to("cpu")
    assert state.histogram is not None
    assert state.moments is not None
    assert state.extrema is not None
    assert state.extrema_at is not None
    cosines = case.cosines[of & ~case.cosines.isnan()]
    pairs, error = len(cosines), case.cosine_error
    deviation = cosines - cosines.mean()
    powers = [cosines.mean(), *(deviation.pow(p).mean() for p in (2, 3, 4)), cosines.abs().mean()]
    exponential = (2 * T * (cosines - 1)).exp().mean()
    found = torch.cat((state.moments, state.exponentials)) / pairs
    # |d c^p| ≤ p·2^(p−1)·|dc| of a deviation, which is within ±2, and as much of the mean; |d exp| ≤ 2t·|dc|.
    slopes = torch.tensor([1.0, 8, 24, 64, 1, 2 * T + 1], dtype=torch.float64)
    distances = (found - torch.stack((*powers, exponential))).abs()
    extremes = (state.extrema - torch.stack((cosines.min(), cosines.max()))).abs()
    at = case.cosines[state.extrema_at[:, 0], state.extrema_at[:, 1]]
    edges = torch.linspace(-1, 1, BINS + 1, dtype=torch.float64)[1:-1]
    above = torch.tensor(THRESHOLDS, dtype=torch.float64)
    right = (
        int(state.counts[0]) == pairs == int(state.histogram.sum())
        and bool((distances <= slopes * error).all())
        and float(extremes.max()) <= error
        and float((at - state.extrema).abs().max()) <= error
        and _counts_fit(cosines, edges, state.histogram.cumsum(0)[:-1], error)
        and _counts_fit(cosines, above, pairs - state.above, error)
    )
    return float(torch.cat((distances / slopes, extremes)).max()), right


def _counts_fit(cosines: Tensor, edges: Tensor, below: Tensor, error: float) -> bool:
    ordered = cosines.sort().values
    least, most = torch.searchsorted(ordered, edges - error), torch.searchsorted(ordered, edges + error, right=True)
    return bool(((least <= below) & (below <= most)).all())


def prove_neighbors(case: Case, backend: str) -> tuple[float, bool]:
    """The largest error of a cosine found, and whether rounding explains it and every choice of a neighbour."""
    alone = case.cosines.clone().fill_diagonal_(torch.nan)
    left, right = case.part(0, _CUT), case.part(_CUT, ROWS)
    there, back = ops.mutual_neighbors(left, right, k=K, other_start=_CUT, backend=backend)
    checks = [
        _check_neighbors(case, ops.neighbors(case.rows, k=K, backend=backend), alone, 0),
        _check_neighbors(case, there, case.cosines[:_CUT, _CUT:], _CUT),
        _check_neighbors(case, back, case.cosines[_CUT:, :_CUT], 0),
    ]
    errors, right_ones = zip(*checks, strict=True)
    return max(errors), all(right_ones)


def _check_neighbors(case: Case, state: Neighbors, cosines: Tensor, start: int) -> tuple[float, bool]:
    """``cosines`` (rows, candidates) in float64, nan where no pair is; ``start`` is the first candidate's index."""
    state = state.to("cpu")
    counted = ~cosines.isnan()
    rows = counted.any(1)
    best = cosines.nan_to_num(-torch.inf).topk(K, dim=1).values[rows]
    found, at = state.cosines.double()[rows], state.indices[rows] - start
    if bool((at < 0).any() or (at >= cosines.shape[1]).any()):
        return float("inf"), False
    # Both that a cosine is that of its pair, and that no better one was overlooked.
    errors = torch.stack(((found - cosines[rows].gather(1, at)).abs(), (found - best).abs()))
    worst = float(errors.nan_to_num(torch.inf).max())
    right = (
        worst <= case.cosine_error
        and int(state.counts[0]) == int(counted.sum())
        and bool((found.diff(dim=1) <= 0).all())
        and all(len(row.unique()) == K for row in at)
        and bool((state.indices[~rows] == -1).all())
    )
    return worst, right
