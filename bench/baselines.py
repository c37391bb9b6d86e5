"""What a user would write instead: each function takes (n, d) rows and gives the same number as fastaniso.

``MOMENTS`` give the mean cosine over the ordered pairs i ≠ j, ``GRAM`` the d×d second moment of the unit rows (or of
the rows as they are, where ``normalised`` is False). tests/test_bench_baselines.py holds that they agree.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fastaniso
from bench.harness import OURS
from fastaniso.ops import dispatch as ops
from fastaniso.rows import as_rows
from fastaniso.state import Gram

FLOATS = ("float32", "bfloat16", "float16")
NUMPY_FLOATS = ("float32",)  # NumPy has no bfloat16, and no float16 product worth timing


@dataclass(frozen=True)
class Contender:
    """A way to the number: ``package`` is what it runs on and must be installed."""

    name: str
    call: Callable[[Tensor], Any]
    package: str
    dtypes: tuple[str, ...] = FLOATS
    full_matrix: bool = False
    normalised: bool = True

    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        if importlib.util.find_spec(self.package) is None:
            return f"{self.name}: the package {self.package} is not installed"
        return None


# Mean cosine.


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


# Second moments.


def unit_gram(x: Tensor) -> Gram:
    return ops.gram(as_rows(x), raw=False, unit=True)


def raw_gram(x: Tensor) -> Gram:
    return ops.gram(as_rows(x), raw=True, unit=False)


def torch_mm(x: Tensor) -> Tensor:
    u = F.normalize(x.float())
    return u.T @ u


def numpy_mm(x: Tensor) -> Any:
    import numpy as np

    a = x.numpy()
    u = a / np.linalg.norm(a, axis=1, keepdims=True)
    return u.T @ u  # NumPy sees that both are one array and calls ssyrk


def ssyrk(x: Tensor) -> Any:
    from scipy.linalg.blas import ssyrk as blas_ssyrk

    return blas_ssyrk(1.0, x.numpy().T)  # the upper triangle


def second_moment(result: Any) -> Tensor:
    """What a ``GRAM`` contender gave, as a whole matrix in float64."""
    if isinstance(result, Gram):
        scatter, total = (
            (result.scatter, result.sums[0]) if result.unit_scatter is None else (result.unit_scatter, result.sums[2])
        )
        assert scatter is not None
        return scatter + torch.outer(total, total / result.kept)
    matrix = torch.as_tensor(result).double()
    if not matrix.tril(-1).any():
        matrix = matrix + matrix.triu(1).T
    return matrix


def error_of_mean(given: float, exact: float, kind: str) -> float:
    """Relative, but absolute where the mean is zero up to chance."""
    return abs(given - exact) if kind == "isotropic" else abs(given - exact) / abs(exact)


def error_of_matrix(given: Any, exact: Tensor) -> float:
    """The largest error of an entry over the largest entry."""
    return float((second_moment(given) - exact).abs().max() / exact.abs().max())


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
GRAM = (
    Contender(OURS, unit_gram, "fastaniso"),
    Contender("fastaniso_raw", raw_gram, "fastaniso", normalised=False),
    Contender("torch_mm", torch_mm, "torch"),
    Contender("numpy_mm", numpy_mm, "numpy", NUMPY_FLOATS),
    Contender("ssyrk", ssyrk, "scipy", NUMPY_FLOATS, normalised=False),
)
