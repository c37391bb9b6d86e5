"""Proof of the linear ops and of the Gram: their sums against those of the float64 reference."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastaniso.doctor.case import GROUPS, Case
from fastaniso.ops import dispatch as ops


def prove_sums(case: Case, backend: str) -> tuple[float, bool]:
    """The largest error, relative to the largest sum of its kind, and whether rounding explains it."""
    worst = 0.0
    for state, expected in zip(_states(case, backend), _states(case, "reference"), strict=True):
        worst = max(worst, _distance(state, expected))
    return worst, worst <= case.sum_error


def prove_reference_sums(case: Case, backend: str) -> tuple[float, bool]:
    """The mean cosine of the sums against that of the full matrix."""
    kept = case.cosines[~case.cosines.diagonal().isnan()]
    n = len(kept)
    expected = (kept.nansum() - n) / (n * (n - 1))
    state = ops.moments(case.rows, backend=backend)
    found = (state.unit_sum.square().sum() - state.unit_sum_squared.sum()) / (n * (n - 1))
    error = float((found - expected).abs())
    return error, int(state.kept) == n and error < 1e-12


def _states(case: Case, backend: str) -> list[dict[str, Any]]:
    return [
        ops.moments(case.rows, backend=backend).to_dict(),
        ops.group_moments(case.rows, case.groups, GROUPS, backend=backend).to_dict(),
        ops.gram(case.rows, backend=backend).to_dict(),
    ]


def _distance(state: dict[str, Any], expected: dict[str, Any]) -> float:
    worst = 0.0
    for name, truth in expected.items():
        if isinstance(truth, Tensor):
            a, b = state[name].double().cpu(), truth.double().cpu()
            worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp(min=1)))
    return worst
