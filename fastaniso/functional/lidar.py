"""LiDAR: the rank of what tells classes apart, whitened by what rows of one class differ in."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch

from fastaniso.functional.group_stream import labelled
from fastaniso.statistics import classes as statistics
from fastaniso.statistics.describe import few_rows
from fastaniso.statistics.host import to_host


def lidar(
    hidden: Any,
    groups: Any,
    *,
    delta: float = 1e-4,
    epsilon: float = 1e-7,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """exp H(p), p = λ/Σλ + ε, λ the eigenvalues of Σ_w^−½ Σ_b Σ_w^−½: from 1 to min(G − 1, d), G the classes.

    Σ_b = Σ_g n_g (μ_g − x̄)(μ_g − x̄)ᵀ/n between the classes and Σ_w = Σ (x − μ_g)(x − μ_g)ᵀ/n + δI within them; H the
    entropy in nats (Thilak et al. 2024, where a class is one sample in its augmentations, all of one size). RankMe of
    what a linear classifier could use: directions in which rows of one class differ count less. Every row counts once,
    so that classes of many rows count more. O(n d²) in one read and an eigendecomposition, O(d²) memory, whatever the
    number of classes; all float64. A UserWarning below 10 rows a dimension.

    δ is added to the covariance as it is: where rows are of another scale than those of about unit variance, so is its
    effect, and two models compare only where their scales do.

    Args:
        hidden: ``[..., d]`` float32, float64, float16 or bfloat16: tensor, NumPy array or anything with DLPack.
        groups: Integer label of the class of each row, ``[...]``, any values; a class of one row has nothing within.
        delta: δ, 0 or more; with 0 a direction in which no class varies raises.
        epsilon: ε, added to p.
        mask: Bool ``[...]``, True keeps a row.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" refuses rows that are zero or hold NaN or Inf; "omit" leaves them out.
        memory_limit: ``MemoryError`` before the run if it takes more beside the input (bytes, or such as "2 GB").

    Returns:
        nan when there are fewer than two classes, or all have exactly one mean.
    """
    for name, value in (("delta", delta), ("epsilon", epsilon)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected a number of 0 or more, got {value!r}")
    rows = labelled(
        hidden,
        groups,
        mask,
        name="groups",
        backend=backend,
        invalid=invalid,
        memory_limit=memory_limit,
        raw=True,
        squares=6,
    )
    scatters = statistics.Scatters(rows.rows.dim, rows.labels.device)
    for block, labels in rows.blocks():
        if (found := statistics.about_means(block.values, block.mask, labels)) is not None:
            classes, centred = found
            scatters.add(classes, centred.mT @ centred)
    scatters.end()
    if scatters.classes < 2:
        return math.nan
    try:
        score = statistics.lidar(scatters.within, scatters.between, rows.n, delta, epsilon)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise ValueError(
            f"delta: with {delta!r} the covariance within classes is singular (rows of a class differ in fewer than "
            f"{rows.rows.dim} directions); pass a larger delta, such as 1e-4 of their variance"
        ) from error
    if note := few_rows(rows.n, rows.rows.dim):
        warnings.warn(note, UserWarning, stacklevel=2)
    return float(to_host(score)[0][0])
