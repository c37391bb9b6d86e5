"""Metrics of the catalogue: IsoScore, and everything at once beside the passes that it needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import fastaniso
from bench.baselines.contender import NUMPY_FLOATS, Contender
from bench.harness import OURS


def isoscore(x: Tensor) -> float:
    return fastaniso.isoscore(x)


def isoscore_package(x: Tensor) -> float:
    from IsoScore.IsoScore import IsoScore

    return float(IsoScore(x.numpy()))


def numpy_isoscore(x: Tensor) -> float:
    """The covariance, and (tr(C)²/‖C‖² − 1)/(d − 1)."""
    import numpy as np

    c = np.cov(x.numpy(), rowvar=False)
    return float((np.trace(c) ** 2 / (c * c).sum() - 1) / (len(c) - 1))


def exact_isoscore(x: Tensor) -> float:
    """From the eigenvalues of the covariance, as Rudman et al. (2022) define it."""
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.double().T)).clamp(min=0)
    d = len(eigenvalues)
    normed = d**0.5 * eigenvalues / torch.linalg.vector_norm(eigenvalues)
    defect = torch.linalg.vector_norm(normed - 1) / (2 * (d - d**0.5)) ** 0.5
    occupied = (d - float(defect) ** 2 * (d - d**0.5)) ** 2 / d**2
    return (d * occupied - 1) / (d - 1)


def everything(x: Tensor) -> Any:
    return fastaniso.describe(x, metrics="all").metrics


def gram_pass(x: Tensor) -> Any:
    return fastaniso.describe(x)


def pairs_pass(x: Tensor) -> Any:
    return fastaniso.pairs(x, bins=8192).mean


def neighbors_pass(x: Tensor) -> Any:
    return fastaniso.nearest_neighbors(x, 10)


ISOSCORE = (
    Contender(OURS, isoscore, "fastaniso"),
    Contender("isoscore_package", isoscore_package, "IsoScore", NUMPY_FLOATS),
    Contender("numpy_cov", numpy_isoscore, "numpy", NUMPY_FLOATS),
)
PASSES = (
    Contender(f"{OURS}_gram", gram_pass, "fastaniso"),
    Contender(f"{OURS}_pairs", pairs_pass, "fastaniso"),
    Contender(f"{OURS}_neighbors", neighbors_pass, "fastaniso"),
)
DESCRIBE = (Contender(OURS, everything, "fastaniso"), *PASSES)
