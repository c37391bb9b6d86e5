"""The d×d second moment of the unit rows, or of the rows as they are where ``normalised`` is False."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.contender import NUMPY_FLOATS, Contender
from bench.harness import OURS
from fastaniso.ops import dispatch as ops
from fastaniso.rows import as_rows
from fastaniso.state import Gram


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


def error_of_matrix(given: Any, exact: Tensor) -> float:
    """The largest error of an entry over the largest entry."""
    return float((second_moment(given) - exact).abs().max() / exact.abs().max())


GRAM = (
    Contender(OURS, unit_gram, "fastaniso"),
    Contender("fastaniso_raw", raw_gram, "fastaniso", normalised=False),
    Contender("torch_mm", torch_mm, "torch"),
    Contender("numpy_mm", numpy_mm, "numpy", NUMPY_FLOATS),
    Contender("ssyrk", ssyrk, "scipy", NUMPY_FLOATS, normalised=False),
)
