"""How far a value would move with other rows of the same kind, from the scatters of the rows alone.

Rows of one sequence are alike, so n rows are fewer independent draws. With Σ the covariance of a row and B that of two
rows of one sequence, the mean of n rows has the covariance (Σ + (m − 1)B)/n, m = Σ n_g²/n the size of the sequence that
a row is in. A scatter is nΣ; of B is known that vᵀBv ≤ vᵀΣv, and of unit rows its trace, the mean cosine within a
sequence less that across two. Both ends follow: B = 0, rows drawn one by one, and B as large as that allows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastaniso.state import Gram
from fastaniso.statistics.cosine import ratio


class StandardErrors(NamedTuple):
    """Each (2,) float64: if rows were drawn one by one, and at most, if only sequences are."""

    mean_cosine: Tensor
    norm_of_mean: Tensor
    unit_drift: Tensor
    relative_drift: Tensor
    mean_norm: Tensor


def standard_errors(gram: Gram, *, in_sequence: float = 1.0, excess: float = 0.0) -> StandardErrors:
    """Standard errors of the mean cosine, of ‖x̄‖, ‖ū‖ and ‖x̄‖/E‖x‖, and of E‖x‖, over the draw of the sequences.

    The mean cosine is a U-statistic (Hoeffding 1948): its variance is 4μᵀVμ + 2‖V‖_F², with V the covariance of ū.
    The others are first order in V; of the ratio, whose parts move together in a way that no scatter tells, the
    relative errors are added. ``in_sequence`` is m (1 for rows without sequences), ``excess`` the trace of B of the
    unit rows; nan where either is nan, and of fewer than two rows. Needs both scatters.
    """
    assert gram.scatter is not None
    assert gram.unit_scatter is not None
    n = gram.counts[0].double()
    alike = torch.tensor([0.0, in_sequence - 1], dtype=torch.float64, device=gram.sums.device).clamp(min=0)
    mean, unit_mean = ratio(gram.sums[0], n), ratio(gram.sums[2], n)
    spread = n * (n - 1)
    along = _quadratic(gram.unit_scatter, unit_mean, spread)
    length = torch.linalg.vector_norm(unit_mean)
    in_all = torch.linalg.matrix_norm(gram.unit_scatter) / spread
    between = torch.tensor(excess, dtype=torch.float64, device=gram.sums.device).clamp(min=0) / n
    # vᵀBv ≤ ‖v‖² tr B and ‖B‖_F ≤ tr B, since B has no negative eigenvalue.
    unit_variance = along + alike * torch.minimum(along, length.square() * between)
    remainder = in_all + alike * torch.minimum(in_all, between)
    raw = _quadratic(gram.scatter, mean, spread) * (1 + alike)
    drift = torch.linalg.vector_norm(mean)
    mean_norm = ratio(gram.totals[0], n)
    norm_variance = (ratio(gram.totals[1], n) - mean_norm.square()).clamp(min=0) / (n - 1) * (1 + alike)
    of_drift, of_norm = raw.sqrt() / drift, norm_variance.sqrt()
    known = torch.where(n > 1, 1.0, torch.nan)
    errors = (
        (4 * unit_variance + 2 * remainder.square()).sqrt(),
        of_drift,
        unit_variance.sqrt() / length,
        (of_drift / drift + of_norm / mean_norm) * drift / mean_norm,
        of_norm,
    )
    return StandardErrors(*(error * known for error in errors))


def _quadratic(scatter: Tensor, vector: Tensor, spread: Tensor) -> Tensor:
    return vector.dot(scatter.mv(vector)) / spread
