"""Mean cosine over the ordered pairs i ≠ j."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fastaniso
from bench.baselines.contender import NUMPY_FLOATS, Contender
from bench.harness import OURS


def mean_cosine(x: Tensor) -> float:
    return fastaniso.mean_cosine(x)


def torch_full_matrix(x: Tensor) -> float:
    u = F.normalize(x)
    return _off_diagonal_mean(u @ u.T)


def numpy_full_matrix(x: Tensor) -> float:
    import numpy as np

    a = x.numpy()
    u = a / np.linalg.norm(a, axis=1, keepdims=True)
    return _off_diagonal_mean(u @ u.T)


def sklearn_full_matrix(x: Tensor) -> float:
    from sklearn.metrics.pairwise import cosine_similarity

    return _off_diagonal_mean(cosine_similarity(x.numpy()))


def torchmetrics_full_matrix(x: Tensor) -> float:
    from torchmetrics.functional import pairwise_cosine_similarity

    # Its diagonal is zero, and its mean over all n².
    return float(pairwise_cosine_similarity(x).mean()) * len(x) / (len(x) - 1)


def normalize_sum(x: Tensor) -> float:
    return _from_unit_sum(F.normalize(x).sum(0), len(x))


def normalize_float_sum(x: Tensor) -> float:
    return _from_unit_sum(F.normalize(x.float()).sum(0), len(x))


@functools.cache
def _compiled() -> Callable[[Tensor], Tensor]:
    return torch.compile(lambda x: F.normalize(x).sum(0))


def compiled_normalize_sum(x: Tensor) -> float:
    return _from_unit_sum(_compiled()(x), len(x))


def norm_matvec(x: Tensor) -> float:
    return _from_unit_sum(torch.linalg.vector_norm(x, dim=1).reciprocal() @ x, len(x))


def einsum_matvec(x: Tensor) -> float:
    import numpy as np

    a = x.numpy()
    s = (1 / np.sqrt(np.einsum("ij,ij->i", a, a))) @ a
    return _from_unit_sum(torch.from_numpy(s), len(x))


def _off_diagonal_mean(matrix: Any) -> float:
    n = len(matrix)
    return (float(matrix.sum()) - float(matrix.diagonal().sum())) / (n * (n - 1))


def _from_unit_sum(unit_sum: Tensor, n: int) -> float:
    s = unit_sum.double()
    return float((s.dot(s) - n) / (n * (n - 1)))


def error_of_mean(given: float, exact: float, kind: str) -> float:
    """Relative, but absolute where the mean is zero up to chance."""
    return abs(given - exact) if kind == "isotropic" else abs(given - exact) / abs(exact)


MOMENTS = (
    Contender(OURS, mean_cosine, "fastaniso"),
    Contender("normalize_sum", normalize_sum, "torch"),
    Contender("normalize_float_sum", normalize_float_sum, "torch", ("bfloat16", "float16")),
    Contender("compiled_normalize_sum", compiled_normalize_sum, "torch", ("float32",)),
    Contender("norm_matvec", norm_matvec, "torch", ("float32",)),
    Contender("einsum_matvec", einsum_matvec, "numpy", NUMPY_FLOATS),
    Contender("torch_full_matrix", torch_full_matrix, "torch", ("float32",), full_matrix=True),
    Contender("numpy_full_matrix", numpy_full_matrix, "numpy", NUMPY_FLOATS, full_matrix=True),
    Contender("sklearn_full_matrix", sklearn_full_matrix, "sklearn", NUMPY_FLOATS, full_matrix=True),
    Contender("torchmetrics_full_matrix", torchmetrics_full_matrix, "torchmetrics", ("float32",), full_matrix=True),
)
