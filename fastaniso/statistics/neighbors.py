"""Statistics of nearest neighbours: intrinsic dimension from their distances, hubness from how often each is one."""

from __future__ import annotations

import torch
from torch import Tensor

from fastaniso._version import __version__
from fastaniso.result import Dropped, Hubness
from fastaniso.state import Neighbors
from fastaniso.statistics.host import to_host


def two_nn(distances: Tensor, share: float) -> tuple[Tensor, int]:
    """Facco et al. (2017): slope through the origin of −log(1 − F) on log μ, μ = r₂/r₁, and the rows it is fitted to.

    ``distances`` (n, k), the nearest first and above 0. F of the i-th smallest of n ratios is i/n; the ``share`` with
    the smallest ratios is fitted. nan of fewer than two rows or distances, or where all ratios are 1.
    """
    n = len(distances)
    used = int(n * share) if distances.shape[1] > 1 else 0
    if not used:
        return distances.new_tensor(torch.nan), 0
    logs = (distances[:, 1] / distances[:, 0]).log().sort().values[:used]
    ranks = torch.arange(1, used + 1, dtype=torch.float64, device=distances.device)
    heights = -torch.log1p(-ranks / n)
    squares = logs.dot(logs)
    slope = logs.dot(heights) / squares.masked_fill(squares == 0, torch.nan)
    return (slope if used > 1 else slope.new_tensor(torch.nan)), used


def levina_bickel(distances: Tensor, k: int, average: str) -> Tensor:
    """Levina & Bickel (2004): of each row 1/m̂ = Σ_{j<k} log(r_k/r_j)/(k − 1); averaged as 1/m̂ or as m̂.

    ``distances`` (n, k or more), the nearest first and above 0. inf where no distance differs from the k-th; nan of no
    row, or of fewer distances.
    """
    if distances.shape[1] < k:
        return distances.new_tensor(torch.nan)
    inverse = (distances[:, k - 1 : k] / distances[:, : k - 1]).log().sum(1) / (k - 1)
    return 1 / inverse.mean() if average == "inverse" else (1 / inverse).mean()


def occurrences(indices: Tensor, candidates: int) -> Tensor:
    """How often each of the candidates is in ``indices`` (n, k), where −1 is nobody: (candidates,) int64."""
    found = indices[indices >= 0]
    return torch.bincount(found, minlength=candidates)


def hubness(occurrences: Tensor) -> Tensor:
    """Skewness, Robin Hood index, share of zeros and maximum of the k-occurrences (m,) int64: (4,); nan of none.

    Skewness is the third central moment over std³, over m (Radovanović et al. 2010), nan where all are equal. The Robin
    Hood index is ½Σ|N − N̄|/ΣN (Feldbauer et al. 2018).
    """
    counts = occurrences.double()
    deviation = counts - counts.mean()
    variance = deviation.square().mean()
    skewness = deviation.pow(3).mean() / variance.masked_fill(variance == 0, torch.nan).pow(1.5)
    robin_hood = deviation.abs().sum() / 2 / counts.sum()
    largest = counts.max() if len(counts) else counts.sum()
    return torch.stack((skewness, robin_hood, (counts == 0).double().mean(), largest))


def describe_hubness(state: Neighbors, candidates: int, kept: Tensor | None, *, n: int, dropped: Dropped) -> Hubness:
    """Hubness of the neighbours of n rows among ``candidates``, of which those at ``kept`` count (None: all)."""
    counts = occurrences(state.indices, candidates)
    among = counts if kept is None else counts[kept]
    skewness, robin_hood, antihubs, largest = to_host(hubness(among))[0].tolist()
    if kept is not None:
        counts = torch.full_like(counts, -1).index_copy_(0, kept, among)
    return Hubness(
        skewness=skewness,
        robin_hood=robin_hood,
        antihubs=antihubs,
        largest=int(largest),
        k=state.k,
        n=n,
        candidates=len(among),
        dim=state.dim,
        dropped=dropped,
        provenance=tuple(sorted(state.provenance)),
        version=__version__,
        occurrences=counts.cpu().numpy(),
    )


def unit_distances(rows: Tensor, others: Tensor) -> Tensor:
    """‖u − v‖ in float64 of rows (s, d) and, for each, k others (s, k, d): (s, k).

    From the difference of unit rows: √(2 − 2c) has lost its digits where c is within rounding of 1.
    """
    distances: Tensor = torch.linalg.vector_norm(_units(rows)[:, None] - _units(others), dim=2)
    return distances


def _units(rows: Tensor) -> Tensor:
    wide = rows.double()
    # Scaled by the largest entry: squares of 1e±200 neither overflow nor vanish.
    wide = wide / wide.abs().amax(-1, keepdim=True)
    units: Tensor = wide / torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return units
