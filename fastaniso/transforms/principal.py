"""Principal directions of the rows."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from fastaniso.transforms.sums import Sums


def principal(sums: Sums) -> tuple[Tensor, Tensor]:
    """Eigenvalues (d,) of the covariance over n, largest first, and its unit eigenvectors (d, d), one a row.

    Rounding below zero is cut off. Of v and −v the one whose entry of largest magnitude is positive.
    """
    eigenvalues, vectors = torch.linalg.eigh(sums.covariance)
    components = vectors.flip(1).T
    largest = components.abs().argmax(1, keepdim=True)
    return eigenvalues.flip(0).clamp(min=0), components * components.gather(1, largest).sign()


def check_components(n_components: Any, dim: int, *, at_least: int) -> None:
    """Refuse a number of components that is not None or an int from ``at_least`` to ``dim``."""
    if n_components is None:
        return
    if (
        isinstance(n_components, bool)
        or not isinstance(n_components, Integral)
        or not at_least <= int(n_components) <= dim
    ):
        raise ValueError(
            f"n_components: expected None or an int from {at_least} to the {dim} dimensions of the rows, "
            f"got {n_components!r}"
        )
