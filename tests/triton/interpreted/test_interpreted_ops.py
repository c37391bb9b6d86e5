"""Every op over the named cases, kernels run line by line in NumPy (slowly: the cases are cut to 80 rows)."""

from __future__ import annotations

from pathlib import Path

import checks
import numpy as np
import pytest
import torch
from cases import CASES, DTYPES, make
from torch import Tensor

from fastaniso.ops import reference
from fastaniso.ops import triton as kernels
from fastaniso.rows import as_rows


def as_block(case: str, dtype: str, *, rows: int = 80, dim: int = 2000) -> tuple[Tensor, Tensor | None]:
    values, mask = make(case, dtype)
    return values[None, :rows, :dim], None if mask is None else mask[None, :rows]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_moments(case: str, dtype: str) -> None:
    checks.check_moments(*as_block(case, dtype), "cpu")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_gram(case: str, dtype: str) -> None:
    # Wide rows are cut to two tiles a side.
    checks.check_gram(*as_block(case, dtype, dim=130), "cpu")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_group_moments(case: str, dtype: str) -> None:
    hidden, mask = as_block(case, dtype)
    checks.check_group_moments(hidden, mask, checks.some_groups(hidden, 3), 3, "cpu")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ["masked", "nan_row", "odd_d"])
def test_rows_at_two_strides(case: str, dtype: str) -> None:
    rows, mask = make(case, dtype)
    hidden, mask = checks.two_axes(rows[:90], None if mask is None else mask[:90])
    checks.check_moments(hidden, mask, "cpu")
    checks.check_gram(hidden[:, :, :33], mask, "cpu")
    checks.check_group_moments(hidden, mask, checks.some_groups(hidden, 2), 2, "cpu")


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_gram_of_several_splits_and_flushes(dtype: str) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = (torch.randn(1, 1300, 20, generator=generator) + 0.5).to(DTYPES[dtype])
    checks.check_gram(hidden, None, "cpu")


def test_group_moments_of_several_segments() -> None:
    hidden = torch.randn(1, 900, 5, generator=torch.Generator().manual_seed(4))
    checks.check_group_moments(hidden, None, checks.some_groups(hidden, 2), 2, "cpu")


def test_no_groups() -> None:
    hidden = torch.randn(1, 4, 3)
    counts, unit_sum, unit_squared, dropped = kernels.group_moments(hidden, None, torch.zeros(1, 4).long(), 0, 0)
    assert (counts.shape, unit_sum.shape, unit_squared.shape) == ((0,), (0, 3), (0,))
    assert dropped[:4].tolist() == [0, 0, 0, 4]


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_one_scatter_or_none(dtype: str) -> None:
    checks.check_gram_parts(*as_block("odd_d", dtype, rows=40), "cpu")


def test_rows_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small launches, as a very long input would have: along the outer axis, and within the inner one."""
    generator = torch.Generator().manual_seed(5)
    for module in ("moments", "gram", "group_moments"):
        original = getattr(kernels, module).__globals__["blocks"]
        monkeypatch.setitem(
            getattr(kernels, module).__globals__, "blocks", lambda h, m, limit, original=original: original(h, m, 20)
        )
    for shape in ((11, 7, 6), (2, 50, 6)):
        hidden = torch.randn(*shape, generator=generator) + 3
        hidden[-1, 3] = 0
        mask = torch.rand(*shape[:2], generator=generator) > 0.3
        mask[-1, 3] = True
        checks.check_moments(hidden, mask, "cpu")
        checks.check_gram(hidden, mask, "cpu")
        checks.check_group_moments(hidden, mask, checks.some_groups(hidden, 3), 3, "cpu")


def test_same_input_same_bits() -> None:
    hidden, mask = as_block("masked", "f32")
    checks.check_same_bits(hidden, mask, checks.some_groups(hidden, 3), 3, "cpu")


def test_offsets_beyond_int32(tmp_path: Path) -> None:
    """Seven rows, 400 million numbers apart, of a sparse file: the last one starts beyond 2³¹."""
    step, dim = 409_600_000, 40
    stored = np.memmap(tmp_path / "sparse", dtype=np.float16, mode="w+", shape=(7, step))
    stored[:, :dim] = np.random.default_rng(6).standard_normal((7, dim))
    rows = as_rows(stored[:, :dim])
    want = reference.moments(rows.values, None, 0)
    got = kernels.moments(rows.values, None, 0)
    assert torch.equal(got[0], want[0])
    torch.testing.assert_close(got[2], want[2], rtol=1e-5, atol=1e-6)
    checks.check_gram(rows.values, None, "cpu")
    checks.check_group_moments(rows.values, None, checks.some_groups(rows.values, 2), 2, "cpu")


def test_through_the_dispatcher() -> None:
    """The registered ops reach these kernels when asked for by name."""
    hidden, mask = as_block("masked", "f32", rows=40)
    through = torch.ops.fastaniso.moments(hidden, mask, 0, "triton")
    for one, two in zip(through, kernels.moments(hidden, mask, 0), strict=True):
        assert torch.equal(one, two)
