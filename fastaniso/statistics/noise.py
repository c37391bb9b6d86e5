"""How far a value would move with other rows of the same kind, from the scatters of the rows alone.

Rows of one sequence are alike, so n rows are fewer independent draws. With Σ the covariance of a row and B that of two
rows of one sequence, the mean of n rows has the covariance (Σ + (m − 1)B)/n, m = Σ n_g²/n the size of the sequence that
a row is in. Scatters give Σ. Of B its trace for unit rows is known, the mean cosine within a sequence less that across
two, and that vᵀBv ≤ vᵀΣv. Three answers follow:

- as if rows were drawn one by one, B = 0;
- likely, B = ϱΣ: sequences explain the same share ϱ = tr B/tr Σ in every direction, and are of one size;
- at most, B as large as its trace allows in the one direction that counts, sequences as long as they may be.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastaniso.state import Gram
from fastaniso.statistics.cosine import ratio


class StandardErrors(NamedTuple):
    """Each (3,) float64: of rows drawn one by one, likely, at most."""

    mean_cosine: Tensor
    norm_of_mean: Tensor
    unit_drift: Tensor
    relative_drift: Tensor
    mean_norm: Tensor


def standard_errors(gram: Gram, *, size: float = 1.0, largest: float = 1.0, excess: float = 0.0) -> StandardErrors:
    """Standard errors of the mean cosine, of ‖x̄‖, ‖ū‖ and ‖x̄‖/E‖x‖, and of E‖x‖, over the draw of the sequences.

    The mean cosine is a U-statistic (Hoeffding 1948): its variance is 4μᵀVμ + 2‖V‖_F², with V the covariance of ū.
    The others are first order in V; of the ratio, whose parts move together in a way that no scatter tells, the
    relative errors are added. ``size`` is the mean number of rows of a sequence and ``largest`` the most there may be
    (both 1 for rows without sequences), ``excess`` the trace of B of the unit rows. nan of fewer than two rows, and
    where an argument is nan. Needs both scatters.
    """
    assert gram.scatter is not None
    assert gram.unit_scatter is not None
    n = gram.counts[0].double()
    spread = n * (n - 1)
    mean, unit_mean = ratio(gram.sums[0], n), ratio(gram.sums[2], n)
    between = torch.tensor(excess, dtype=torch.float64, device=gram.sums.device).clamp(min=0) / n
    share = (between * spread / gram.unit_scatter.trace()).clamp(max=1)

    def with_sequences(variance: Tensor, bound: Tensor) -> Tensor:
        """``variance`` of a mean of independent rows, and what is added to it of each row by all others alike."""
        likely = variance * (1 + (size - 1) * share)
        return torch.stack((variance, likely, variance + (largest - 1) * torch.minimum(variance, bound)))

    length = torch.linalg.vector_norm(unit_mean)
    # vᵀBv ≤ ‖v‖² tr B and ‖B‖_F ≤ tr B, since B has no negative eigenvalue.
    unit_variance = with_sequences(_quadratic(gram.unit_scatter, unit_mean, spread), length.square() * between)
    remainder = with_sequences(torch.linalg.matrix_norm(gram.unit_scatter) / spread, between)
    unbounded = torch.full_like(between, torch.inf)
    drift, mean_norm = torch.linalg.vector_norm(mean), ratio(gram.totals[0], n)
    of_drift = with_sequences(_quadratic(gram.scatter, mean, spread), unbounded).sqrt() / drift
    norm_variance = (ratio(gram.totals[1], n) - mean_norm.square()).clamp(min=0) / (n - 1)
    of_norm = with_sequences(norm_variance, unbounded).sqrt()
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
