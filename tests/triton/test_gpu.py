"""The same checks as under the interpreter, on a GPU and at its sizes. (Not yet run on one.)"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

import checks
from cases import CASES, DTYPES, make

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm device on this machine"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_named_cases(case: str, dtype: str) -> None:
    rows, mask = make(case, dtype)
    hidden, mask = rows[None], None if mask is None else mask[None]
    groups = checks.some_groups(hidden, 3)
    checks.check_moments(hidden, mask, "cuda")
    checks.check_gram(hidden, mask, "cuda")
    checks.check_group_moments(hidden, mask, groups, 3, "cuda")
    checks.check_same_bits(hidden, mask, groups, 3, "cuda")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ["masked", "nan_row", "odd_d"])
def test_rows_at_two_strides(case: str, dtype: str) -> None:
    hidden, mask = checks.two_axes(*make(case, dtype))
    checks.check_moments(hidden, mask, "cuda")
    checks.check_gram(hidden, mask, "cuda")
    checks.check_group_moments(hidden, mask, checks.some_groups(hidden, 2), 2, "cuda")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 64, 384, 768, 1000, 1024, 1536])
def test_widths(dim: int, dtype: str) -> None:
    generator = torch.Generator().manual_seed(dim)
    hidden = (torch.randn(1, 5000, dim, generator=generator) + 0.1).to(DTYPES[dtype])
    checks.check_moments(hidden, None, "cuda")
    checks.check_gram(hidden, None, "cuda")


@pytest.mark.parametrize("dim", [4096, 8192, 8193])
def test_wide_moments(dim: int) -> None:
    hidden = torch.randn(1, 700, dim, generator=torch.Generator().manual_seed(dim)).bfloat16()
    checks.check_moments(hidden, None, "cuda")


def test_offsets_beyond_int32() -> None:
    checks.check_beyond_int32("cuda")


def test_no_synchronisation() -> None:
    """Nothing waits for the device: an update in a training loop must not."""
    hidden = torch.randn(1, 3000, 96).cuda()
    groups = torch.zeros(1, 3000, dtype=torch.int64).cuda()
    checks.run_all(hidden, None, groups, 2)  # compiled first: loading a kernel may synchronise
    torch.cuda.set_sync_debug_mode("error")
    try:
        checks.run_all(hidden, None, groups, 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
