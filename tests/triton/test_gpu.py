"""The same checks as under the interpreter, on a GPU and at its sizes. (Not yet run on one.)"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

import checks
import pair_checks
from cases import CASES, DTYPES, make

from fastaniso.ops import triton as kernels

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
    pair_checks.check_pairs(hidden, mask, "cuda")
    pair_checks.check_neighbors(hidden, mask, 10, "cuda")
    pair_checks.check_same_bits(hidden, mask, "cuda")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ["masked", "nan_row", "odd_d"])
def test_rows_at_two_strides(case: str, dtype: str) -> None:
    hidden, mask = checks.two_axes(*make(case, dtype))
    checks.check_moments(hidden, mask, "cuda")
    checks.check_gram(hidden, mask, "cuda")
    checks.check_group_moments(hidden, mask, checks.some_groups(hidden, 2), 2, "cuda")
    pair_checks.check_pairs(hidden, mask, "cuda")
    pair_checks.check_neighbors(hidden, mask, 3, "cuda")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 64, 384, 768, 1000, 1024, 1536])
def test_widths(dim: int, dtype: str) -> None:
    generator = torch.Generator().manual_seed(dim)
    hidden = (torch.randn(1, 5000, dim, generator=generator) + 0.1).to(DTYPES[dtype])
    checks.check_moments(hidden, None, "cuda")
    checks.check_gram(hidden, None, "cuda")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "dim"), [(4096, 384), (4097, 768), (4000, 1000), (4096, 4096), (300, 1)])
def test_pairs_of_thousands(n: int, dim: int, dtype: str) -> None:
    generator = torch.Generator().manual_seed(dim)
    hidden = (torch.randn(1, n, dim, generator=generator) + 0.1).to(DTYPES[dtype])
    hidden[0, ::701] = 0
    other = hidden[:, 1 : n // 3].flip(1).contiguous()
    pair_checks.check_pairs(hidden, None, "cuda", bins=2048, thresholds=[0.1, 0.5], uniformity_t=[2.0, 0.5])
    pair_checks.check_pairs(hidden, None, "cuda", other=other)
    pair_checks.check_neighbors(hidden, None, 10, "cuda")
    pair_checks.check_neighbors(hidden, None, 100, "cuda", other=other, both=True)
    pair_checks.check_least(hidden, None, other, "cuda")
    if dtype == "f32":
        pair_checks.check_fast(hidden, "cuda")


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_cosines(dtype: str) -> None:
    pair_checks.check_exact(1000, DTYPES[dtype], "cuda")


@pytest.mark.parametrize("dtype", DTYPES)
def test_parts(dtype: str) -> None:
    hidden = torch.randn(1, 1500, 96, generator=torch.Generator().manual_seed(2)).to(DTYPES[dtype])
    pair_checks.check_parts(hidden, None, "cuda")


@pytest.mark.parametrize("bins", [2, 64, 1000, 4096, 8192])
def test_any_number_of_bins(bins: int) -> None:
    hidden = torch.randn(1, 700, 64, generator=torch.Generator().manual_seed(2)).bfloat16()
    pair_checks.check_pairs(hidden, None, "cuda", bins=bins)


def test_all_cosines_in_one_bin() -> None:
    rows = torch.ones(1, 20_000, 64, dtype=torch.bfloat16, device="cuda")
    counts, histogram, *_ = kernels.pairs(rows, None, None, None, 1024, False, False, [], [], 0, 0)
    assert histogram[-1] == counts[0] == 20_000 * 19_999 // 2


def test_several_panels() -> None:
    """Three panels of 65 536 rows: the merged counts and extrema of one whole."""
    rows = torch.randn(1, 150_000, 16, device="cuda", generator=torch.Generator("cuda").manual_seed(4)).half()
    counts, histogram, powers, _, _, extrema, places = kernels.pairs(
        rows, None, None, None, 256, True, True, [], [], 0, 0
    )
    assert histogram.sum() == counts[0] == 150_000 * 149_999 // 2
    units = torch.nn.functional.normalize(rows[0].double(), dim=1)
    total = (units.sum(0).square().sum() - units.square().sum()) / 2
    assert abs(powers[0] - total) <= 1e-6 * counts[0]
    for value, (i, j) in zip(extrema, places, strict=True):
        assert abs(units[i] @ units[j] - value) < 1e-5


@pytest.mark.parametrize("dim", [4096, 8192, 8193])
def test_wide_moments(dim: int) -> None:
    hidden = torch.randn(1, 700, dim, generator=torch.Generator().manual_seed(dim)).bfloat16()
    checks.check_moments(hidden, None, "cuda")


def test_offsets_beyond_int32() -> None:
    checks.check_beyond_int32("cuda")
    pair_checks.check_beyond_int32("cuda")


def test_no_synchronisation() -> None:
    """Nothing waits for the device: an update in a training loop must not."""
    hidden = torch.randn(1, 3000, 96).cuda()
    groups = torch.zeros(1, 3000, dtype=torch.int64).cuda()

    def run() -> None:
        checks.run_all(hidden, None, groups, 2)
        pair_checks.run_both(hidden, None, hidden[:, :1000])

    run()  # compiled first: loading a kernel may synchronise
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
