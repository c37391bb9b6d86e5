"""Statistics of a second look at the rows, a block at a time in float64: each row against what the first look told.

``values`` are a block's (outer, inner, d) and ``mask`` its (outer, inner) or None, as in ``Rows``; m rows in all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from fastaniso._version import __version__
from fastaniso.result import CosineToMean, Dropped
from fastaniso.state import Gram, Moments
from fastaniso.statistics.cosine import ratio

_AT_THE_MEAN = 16 * torch.finfo(torch.float64).eps
"""Of the mean norm: a row this near to the mean differs from it by rounding."""


class Measured(NamedTuple):
    """Rows in float64 (m, d), their lengths (m,), and which have a direction and are not masked (m,).

    Float64 rows are divided by their largest entry first: their squares could overflow or vanish.
    """

    values: Tensor
    lengths: Tensor
    kept: Tensor

    @property
    def units(self) -> Tensor:
        """u = x/‖x‖ (m, d); nan or zero where a row does not count."""
        return self.values / self.lengths[:, None]

    def cosines(self, direction: Tensor) -> Tensor:
        """u·v with a vector v (d,): (m,), nan of a row that does not count."""
        return (self.values.mv(direction) / self.lengths).masked_fill_(~self.kept, torch.nan)


def measured(values: Tensor, mask: Tensor | None) -> Measured:
    """The rows of a block with their lengths."""
    wide = wide_rows(values)
    if values.dtype == torch.float64:
        wide = wide / wide.abs().amax(1, keepdim=True)
    lengths = torch.linalg.vector_norm(wide, dim=1)
    kept = lengths.isfinite() & (lengths > 0)
    return Measured(wide, lengths, kept if mask is None else kept & mask.flatten())


def wide_rows(values: Tensor) -> Tensor:
    """A block as float64 (m, d)."""
    return values.reshape(-1, values.shape[2]).double()


def kept_rows(values: Tensor, mask: Tensor | None) -> Tensor:
    """Rows that are not masked, not zero and finite: bool (m,)."""
    usable = (values.isfinite().all(2) & (values != 0).any(2)).flatten()
    return usable if mask is None else usable & mask.flatten()


def mean_cosine_to_others(rows: Measured, moments: Moments) -> Tensor:
    """(u_i·s − 1)/(n − 1) of a block, u of length 1 in float64: (m,); nan of a row that does not count, or if n < 2."""
    n = moments.counts[0].double()
    # Rounded unit rows whose lengths all err the same way make s too long or too short.
    unit_sum = moments.sums[2] * (n / moments.totals[4]).sqrt()
    return ratio(rows.cosines(unit_sum) - 1, n - 1)


def mean_direction(moments: Moments) -> Tensor:
    """x̄/‖x̄‖ (d,); nan when the mean is zero or there is no row."""
    # Only the direction is wanted: the largest entry is divided out, so that squares stay within float64.
    total = moments.sums[0] / moments.sums[0].abs().amax()
    direction: Tensor = total / torch.linalg.vector_norm(total)
    return direction


def describe_cosines(cosines: Tensor, moments: Moments, n: int, dropped: Dropped) -> CosineToMean:
    """The result of the cosines to the mean, of all blocks together: (rows,), n of them not nan."""
    kept = cosines[~cosines.isnan()]
    least, largest = kept.aminmax() if len(kept) else (kept.mean(), kept.mean())
    spread = (kept - kept.mean()).square().mean().sqrt()
    values = torch.stack((kept.mean(), spread, least, largest)).tolist()
    return CosineToMean(
        mean=values[0],
        std=values[1],
        min=values[2],
        max=values[3],
        n=n,
        dim=moments.dim,
        dropped=dropped,
        provenance=tuple(sorted(moments.provenance)),
        version=__version__,
        cosines=cosines.cpu().numpy(),
    )


def sum_about(values: Tensor, mask: Tensor | None, origin: Tensor) -> Tensor:
    """Σ(x − origin) of a block's rows that the mask keeps: (d,)."""
    shifted = torch.sub(values, origin).view(-1, values.shape[2])
    return (shifted if mask is None else shifted[mask.flatten()]).sum(0)


def without_mean(values: Tensor, mean: Tensor, mean_norm: Tensor) -> Tensor:
    """x − x̄ of a block (outer, inner, d) in float64, and exactly zero for a row that differs from x̄ by rounding."""
    # A float32 number less a float64 one is float64.
    centred = torch.sub(values, mean)
    centred[torch.linalg.vector_norm(centred, dim=2) <= _AT_THE_MEAN * mean_norm] = 0
    return centred.contiguous()


def second_moment_directions(gram: Gram, *, unit: bool) -> Tensor:
    """Eigenvectors of XᵀX (``unit``: of UᵀU) as columns (d, d), each with its largest entry positive.

    Their signs are arbitrary; with this one a score that depends on them is the same on every machine.
    """
    scatter, total = (gram.unit_scatter, gram.sums[2]) if unit else (gram.scatter, gram.sums[0])
    assert scatter is not None
    n = gram.counts[0].double().clamp(min=1)
    _, vectors = torch.linalg.eigh(torch.addr(scatter, total / n, total))
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    signed: Tensor = vectors * torch.where(largest < 0, -1.0, 1.0)
    return signed


def log_partition(blocks: Iterable[Tensor], directions: Tensor, *, both: bool) -> Tensor:
    """log Σ_i exp(c·x_i) over rows in blocks (m, d), c the columns of ``directions`` and, with ``both``, −c, too.

    (d,) or (2d,), float64, by log-sum-exp: no norm of the rows is too large.
    """
    signs = (1, -1) if both else (1,)
    logs = [directions.new_full((directions.shape[1],), -torch.inf) for _ in signs]
    for rows in blocks:
        products = rows @ directions
        logs = [
            torch.logaddexp(log, torch.logsumexp(sign * products, 0)) for log, sign in zip(logs, signs, strict=True)
        ]
    return torch.cat(logs)


def distances_to_power(rows: Measured, others: Measured, alpha: float) -> Tensor:
    """Σ‖u_i − v_i‖^α over the rows of two blocks that count in both, and their number: (2,).

    From the difference of unit rows: 2 − 2c has lost its digits where c is within rounding of 1.
    """
    kept = rows.kept & others.kept
    lengths = torch.linalg.vector_norm(rows.units - others.units, dim=1)
    powers = lengths.pow(alpha).masked_fill_(~kept, 0)
    return torch.stack((powers.sum(), kept.sum().double()))
