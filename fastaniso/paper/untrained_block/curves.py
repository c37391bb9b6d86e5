"""What was measured, as curves over the norm of the bias: pure functions of the run's JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastaniso.paper.experiment import Measured

Curves = NDArray[np.float64]


def norms_of(measured: Measured) -> Curves:
    """The norms of the bias, ascending; the first is 0."""
    return np.array(measured["norms"], dtype=np.float64)


def curves(measured: Measured, kind: str, *path: str) -> Curves:
    """One quantity of one kind of block, (seeds, norms): ``curves(measured, "bert", "output", "cosine")``."""
    found: dict[tuple[int, float], float] = {}
    for point in measured["points"]:
        if point["kind"] == kind:
            value: Any = point
            for name in path:
                value = value[name]
            found[point["seed"], point["norm"]] = value
    return np.array([[found[seed, norm] for norm in measured["norms"]] for seed in measured["seeds"]])


def cosines_at(measured: Measured, norm: float, where: str) -> Curves:
    """Mean cosines of a BERT block at one norm of the bias, of all seeds that there are, in their order."""
    points = [point for point in measured["points"] if point["kind"] == "bert"] + list(measured["more_points"])
    return np.array([point[where]["cosine"] for point in points if point["norm"] == norm])


def crossing(norms: Curves, values: Curves, level: float) -> float | None:
    """The first norm above 0 at which a curve crosses ``level``, linear in log N between two of them; None if never."""
    for left in range(1, len(norms) - 1):
        below, above = values[left] - level, values[left + 1] - level
        if below * above < 0 or above == 0:
            share = below / (below - above)
            return float(np.exp(np.log(norms[left]) * (1 - share) + np.log(norms[left + 1]) * share))
    return None


def fixed_points(measured: Measured, kind: str, output: str = "output") -> list[float | None]:
    """By seed, the norm of the bias N* at which the mean norm of the output is that of the input."""
    ratios = np.log(curves(measured, kind, output, "norm") / curves(measured, kind, "input", "norm"))
    return [crossing(norms_of(measured), ratio, 0.0) for ratio in ratios]


def slopes(measured: Measured, kind: str, quantity: str, least_norm: float = 5.0) -> Curves:
    """By seed, the power of N that a spread of the scores grows with, by least squares on logarithms above a norm."""
    norms = norms_of(measured)
    far = norms >= least_norm
    spread = np.log(curves(measured, kind, "scores", quantity)[:, far])
    return np.array([np.polyfit(np.log(norms[far]), one, 1)[0] for one in spread])


def gains(measured: Measured, kind: str, output: str = "output") -> Curves:
    """Mean cosine of the output less that of the input, (seeds, norms)."""
    return curves(measured, kind, output, "cosine") - curves(measured, kind, "input", "cosine")


def apart(measured: Measured, kind: str, output: str = "output") -> Curves:
    """(1 − mean cosine of the output) / (1 − that of the input): below one, the block made rows more alike.

    Unlike a difference it tells as much at large norms, where both cosines are near one.
    """
    return (1 - curves(measured, kind, output, "cosine")) / (1 - curves(measured, kind, "input", "cosine"))


def between(values: Any, digits: int = 3) -> str:
    """The range of some numbers over seeds, "0.462–0.485"; one number where both ends read the same."""
    low, high = (_short(float(end), digits) for end in (np.min(values), np.max(values)))
    if low == high:
        return low
    return f"{low} to {high}" if low.startswith("-") else f"{low}–{high}"


def _short(value: float, digits: int) -> str:
    if abs(value) >= 1e4:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if value and abs(value) < 1e-3 else f"{value:.{digits}f}"


def power(values: Curves) -> str:
    """The range of powers of N over seeds, to two digits; what rounds to zero is zero."""
    return between(np.round(values, 2) + 0.0, 2)
