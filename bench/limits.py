"""What the machine can do at best, by plain calls timed in the same rounds as the contenders."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from bench.harness import Timing

PRODUCT_ROWS = 4_096
"""Rows of the products that the limit of all pairs is taken from."""


def readers(x: Tensor) -> dict[str, Callable[[], object]]:
    """Calls that read all bytes of x once and do next to nothing else; the fastest is the read bandwidth.

    16-bit rows are read as int32, so that no conversion is timed.
    """
    flat = x.view(-1)
    words = flat.view(torch.int64)
    calls: dict[str, Callable[[], object]] = {"read: sum of int64": words.sum, "read: max of int64": words.amax}
    if x.dtype == torch.float32:
        calls["read: sum"] = flat.sum
        calls["read: norm"] = lambda: torch.linalg.vector_norm(flat)
    return calls


def products(x: Tensor) -> dict[str, Callable[[], object]]:
    """General products XᵀX in float32, which know nothing of symmetry: half of the fastest's time is the limit.

    Two arrays, because NumPy and SciPy are not asked for a symmetric product here.
    """
    x = x.float()
    calls: dict[str, Callable[[], object]] = {"sgemm: torch": lambda: torch.mm(x.T, x)}
    if importlib.util.find_spec("scipy") is not None:
        from scipy.linalg.blas import sgemm

        transposed = x.numpy().T  # in Fortran's order: nothing is copied
        calls["sgemm: OpenBLAS"] = lambda: sgemm(1.0, transposed, transposed, trans_b=1)
    return calls


def row_products(x: Tensor) -> dict[str, Callable[[], object]]:
    """General products XXᵀ in float32 of at most ``PRODUCT_ROWS`` rows, into arrays that are already there.

    Of all rows the n × n result would be what is timed: memory, and its pages. So these are scaled to n² by
    ``half_of_square``.
    """
    x = x[:PRODUCT_ROWS].float()
    product = torch.empty(len(x), len(x))
    calls: dict[str, Callable[[], object]] = {"sgemm: torch": lambda: torch.mm(x, x.T, out=product)}
    if importlib.util.find_spec("scipy") is not None:
        from scipy.linalg.blas import sgemm

        transposed, result = x.numpy().T, product.numpy().T  # in Fortran's order: nothing is copied
        calls["sgemm: OpenBLAS"] = lambda: sgemm(1.0, transposed, transposed, trans_a=1, c=result, overwrite_c=1)
    return calls


def half_of_square(timings: dict[str, Timing], n: int) -> float:
    """Half the seconds of the fastest of ``row_products``, scaled to n rows: what all pairs take at best."""
    return fastest(timings) / 2 * (n / min(n, PRODUCT_ROWS)) ** 2


def fastest(timings: dict[str, Timing]) -> float:
    """Seconds of the fastest by its median."""
    return min(timing.p50 for timing in timings.values())
