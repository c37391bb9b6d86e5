"""The ``K`` nearest other rows of each row by cosine, as (cosines, indices), and the intrinsic dimension from them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fastaniso
from bench.baselines.contender import NUMPY_FLOATS, Contender
from bench.harness import OURS

K = 10


def nearest(x: Tensor) -> Any:
    return fastaniso.nearest_neighbors(x, K)


def torch_chunks(x: Tensor, *, rows: int = 1024) -> tuple[Tensor, Tensor]:
    """Some rows with all of them, and ``topk``."""
    u = F.normalize(x.float())
    cosines, indices = torch.empty(len(u), K), torch.empty(len(u), K, dtype=torch.int64)
    for start in range(0, len(u), rows):
        block = u[start : start + rows] @ u.T
        block.diagonal(start).fill_(-torch.inf)
        torch.topk(block, K, out=(cosines[start : start + rows], indices[start : start + rows]))
    return cosines, indices


def faiss_flat(x: Tensor) -> tuple[Any, Any]:
    """Exact search of the unit rows among themselves, and what is found of each row's own left out."""
    import faiss
    import numpy as np

    u = F.normalize(x.float()).numpy()
    index = faiss.IndexFlatIP(u.shape[1])
    index.add(u)
    cosines, indices = index.search(u, K + 1)
    others = indices != np.arange(len(u))[:, None]
    others[others.all(1), -1] = False  # of a row with many equals the row itself may not be among the first
    return cosines[others].reshape(-1, K), indices[others].reshape(-1, K)


def sklearn_brute(x: Tensor) -> tuple[Any, Any]:
    from sklearn.neighbors import NearestNeighbors

    distances, indices = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute").fit(x.numpy()).kneighbors()
    return 1 - distances, indices


def two_nn(x: Tensor) -> float:
    return fastaniso.two_nn(x).dimension


def skdim_two_nn(x: Tensor) -> float:
    import skdim

    return float(skdim.id.TwoNN(discard_fraction=0.1).fit(F.normalize(x).numpy()).dimension_)


def error_of_neighbors(given: Any, exact: Tensor) -> float:
    """The largest difference of a cosine from the (n, K) largest, in order."""
    return float((torch.as_tensor(given[0]).double() - exact).abs().max())


NEIGHBORS = (
    Contender(OURS, nearest, "fastaniso"),
    Contender("torch_chunks_topk", torch_chunks, "torch", most_rows=10_000),
    Contender("faiss_flat", faiss_flat, "faiss", NUMPY_FLOATS, most_rows=10_000),
    Contender("sklearn_brute", sklearn_brute, "sklearn", NUMPY_FLOATS, most_rows=10_000),
)
TWO_NN = (
    Contender(OURS, two_nn, "fastaniso"),
    Contender("skdim_two_nn", skdim_two_nn, "skdim", NUMPY_FLOATS),
)
