"""Histogram of the cosines of the unordered pairs i < j: counts in ``BINS`` equal bins over [−1, 1].

Those that see every pair twice halve their counts. Nobody but fastaniso says on which side of an edge a cosine on it
is counted.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fastaniso
from bench.baselines.contender import NUMPY_FLOATS, Contender
from bench.harness import OURS

BINS = 2048
_LEFT_OUT = 2.0
"""What takes the place of a row's cosine with itself: no bin holds it."""


def histogram(x: Tensor) -> Any:
    return fastaniso.cosine_histogram(x, bins=BINS).total


def everything(x: Tensor) -> Any:
    """With moments, extrema, the sum of exponentials and a threshold."""
    return fastaniso.pairs(x, bins=BINS, thresholds=(0.5,), uniformity_t=2.0).histogram.total


def torch_tiles(x: Tensor, *, block: int) -> Tensor:
    """Tiles of the upper triangle, small enough for the cache."""
    u = F.normalize(x.float())
    counts = torch.zeros(BINS, dtype=torch.int64)
    for i in range(0, len(u), block):
        for j in range(i, len(u), block):
            tile = u[i : i + block] @ u[j : j + block].T
            counts += torch.histc(_upper(tile) if i == j else tile, BINS, -1, 1).long()
    return counts


def torch_tiles_bincount(x: Tensor, *, block: int) -> Tensor:
    """The same tiles, their bins counted as integers."""
    u = F.normalize(x.float())
    counts = torch.zeros(BINS, dtype=torch.int64)
    for i in range(0, len(u), block):
        for j in range(i, len(u), block):
            tile = u[i : i + block] @ u[j : j + block].T
            bins = tile.add_(1).mul_(BINS / 2).long().clamp_(0, BINS - 1)
            counts += torch.bincount(_upper(bins) if i == j else bins.view(-1), minlength=BINS)
    return counts


def torch_chunks(x: Tensor, *, rows: int = 1024) -> Tensor:
    """Some rows with all of them: every pair twice."""
    u = F.normalize(x.float())
    counts = torch.zeros(BINS, dtype=torch.int64)
    for start in range(0, len(u), rows):
        cosines = u[start : start + rows] @ u.T
        cosines.diagonal(start).fill_(_LEFT_OUT)
        counts += torch.histc(cosines, BINS, -1, 1).long()
    return counts / 2


def numpy_tiles(x: Tensor, *, block: int = 512) -> Any:
    import numpy as np

    u = _numpy_unit(x)
    counts = np.zeros(BINS, np.int64)
    for i in range(0, len(u), block):
        for j in range(i, len(u), block):
            tile = u[i : i + block] @ u[j : j + block].T
            counts += _numpy_counts(tile[np.triu_indices(len(tile), 1)] if i == j else tile)
    return counts


def numpy_chunks(x: Tensor, *, rows: int = 1024) -> Any:
    import numpy as np

    u = _numpy_unit(x)
    counts = np.zeros(BINS, np.int64)
    for start in range(0, len(u), rows):
        cosines = u[start : start + rows] @ u.T
        np.fill_diagonal(cosines[:, start:], _LEFT_OUT)
        counts += _numpy_counts(cosines)
    return counts / 2


def numpy_full_matrix(x: Tensor) -> Any:
    """The whole matrix, and of it the pairs i < j."""
    import numpy as np

    u = _numpy_unit(x)
    return _numpy_counts((u @ u.T)[np.triu_indices(len(u), 1)])


def sklearn_chunks(x: Tensor) -> Any:
    import numpy as np
    from sklearn.metrics import pairwise_distances_chunked

    counts = np.zeros(BINS, np.int64)
    for distances in pairwise_distances_chunked(x.numpy(), metric="cosine"):
        counts += np.histogram(distances, BINS, (0, 2))[0]
    counts[0] -= len(x)  # the distances of the rows to themselves
    return counts[::-1] / 2


def torchmetrics_full_matrix(x: Tensor) -> Tensor:
    from torchmetrics.functional import pairwise_cosine_similarity

    counts = torch.histc(pairwise_cosine_similarity(x), BINS, -1, 1).double()
    counts[BINS // 2] -= len(x)  # its diagonal is zero
    return counts / 2


def scipy_pdist(x: Tensor) -> Any:
    import numpy as np
    from scipy.spatial.distance import pdist

    return np.histogram(pdist(x.numpy(), "cosine"), BINS, (0, 2))[0][::-1]


def simsimd_cdist(x: Tensor) -> Any:
    import numpy as np
    import simsimd

    a = x.numpy()
    distances = np.asarray(simsimd.cdist(a, a, metric="cosine", threads=torch.get_num_threads(), out_dtype="float32"))
    np.fill_diagonal(distances, -1)
    return np.histogram(distances, BINS, (0, 2))[0][::-1] / 2


def keops_one_hot(x: Tensor) -> Tensor:
    """A symbolic sum of one-hot vectors: a formula that KeOps compiles, and the matrix is never there."""
    import pykeops
    from pykeops.torch import LazyTensor

    pykeops.set_verbose(False)
    u = F.normalize(x)
    cosines = LazyTensor(u[:, None, :]) | LazyTensor(u[None, :, :])
    # It rounds to the nearest bin; the clamp keeps a row's cosine with itself in the last one.
    bins = (cosines * (BINS / 2) + (BINS / 2 - 0.5)).clamp(0.0, BINS - 1.0)
    counts = bins.one_hot(BINS).sum(1).double().sum(0)
    counts[-1] -= len(x)
    return counts / 2


def error_of_histogram(given: Any, exact: Tensor) -> float:
    """Share of the pairs, or a little less, that are in a wrong bin: the net flow over each edge, summed."""
    counts = given.double() if isinstance(given, Tensor) else torch.from_numpy(given.astype("float64"))
    flows = (counts - exact).cumsum(0).abs().sum()
    return float(flows / exact.sum())


def _upper(tile: Tensor) -> Tensor:
    """What a tile on the diagonal holds of pairs i < j."""
    return tile[torch.ones_like(tile, dtype=torch.bool).triu(1)]


def _numpy_unit(x: Tensor) -> Any:
    import numpy as np

    a = x.numpy()
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def _numpy_counts(cosines: Any) -> Any:
    import numpy as np

    return np.histogram(cosines, BINS, (-1, 1))[0]


PAIRS = (
    Contender(OURS, histogram, "fastaniso"),
    Contender("fastaniso_everything", everything, "fastaniso"),
    Contender("torch_tiles_512", functools.partial(torch_tiles, block=512), "torch", most_rows=10_000),
    Contender("torch_tiles_1024", functools.partial(torch_tiles, block=1024), "torch", most_rows=10_000),
    Contender("torch_tiles_bincount", functools.partial(torch_tiles_bincount, block=512), "torch", most_rows=10_000),
    Contender("torch_chunks", torch_chunks, "torch", most_rows=10_000),
    Contender("numpy_tiles", numpy_tiles, "numpy", NUMPY_FLOATS, most_rows=10_000),
    Contender("numpy_chunks", numpy_chunks, "numpy", NUMPY_FLOATS, most_rows=10_000),
    Contender("numpy_full_matrix", numpy_full_matrix, "numpy", NUMPY_FLOATS, most_rows=10_000),
    Contender("sklearn_chunks", sklearn_chunks, "sklearn", NUMPY_FLOATS, most_rows=10_000),
    Contender("torchmetrics_full_matrix", torchmetrics_full_matrix, "torchmetrics", ("float32",), most_rows=10_000),
    Contender("scipy_pdist", scipy_pdist, "scipy", NUMPY_FLOATS, most_rows=2_000),
    Contender("simsimd_cdist", simsimd_cdist, "simsimd", NUMPY_FLOATS, most_rows=2_000),
    Contender("keops_one_hot", keops_one_hot, "pykeops", ("float32",), most_rows=1_000),
)
