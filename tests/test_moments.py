"""The moments op: every instruction set × dtype × named case against float64 on the same rounded inputs."""

from __future__ import annotations

import pytest
import tolerance
import torch
from cases import CASES, DTYPES, make

from fastaniso.ops import dispatch, reference
from fastaniso.rows import Rows, as_rows


def kept(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Kept rows and unit rows in float64."""
    values, lengths, _ = reference._keep(rows.values, rows.mask, 0)
    return values, values / lengths[:, None]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_moments(isa: str, dtype: str, case: str) -> None:
    rows = as_rows(*make(case, dtype))
    ours = dispatch.moments(rows, backend="cpu")
    right = dispatch.moments(rows, backend="reference")

    assert torch.equal(ours.counts, right.counts)
    bound = tolerance.sums(*kept(rows), DTYPES[dtype])
    assert ((ours.sums - right.sums).abs() <= bound).all()
    relative = tolerance.norms(rows.dim, DTYPES[dtype])
    torch.testing.assert_close(ours.totals, right.totals, rtol=2 * relative, atol=0)


@pytest.mark.parametrize("case", ["isotropic", "odd_d", "drifted", "masked"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_not_worse_than_torch_in_the_same_dtype(isa: str, dtype: str, case: str) -> None:
    values, mask = make(case, dtype)
    rows = as_rows(values, mask)
    right = dispatch.moments(rows, backend="reference").unit_sum
    ours = dispatch.moments(rows, backend="cpu").unit_sum
    chosen = values if mask is None else values[mask]
    theirs = torch.nn.functional.normalize(chosen, dim=1).sum(0).double()
    # Half a unit in the last place of what is measured: below that the comparison is a toss.
    assert (ours - right).norm() <= (theirs - right).norm() + tolerance.rounding(torch.float32) * right.norm()


def test_unit_squares_total_is_the_sum_of_the_rounded_ones(isa: str) -> None:
    state = dispatch.moments(as_rows(torch.randn(500, 40)), backend="cpu")
    torch.testing.assert_close(state.totals[4], state.unit_sum_squared.sum(), rtol=1e-15, atol=0)


def test_a_true_mean_of_1e_6_at_a_million_rows(isa: str) -> None:
    # n unit rows ±e_k, all but a few of each sign: ‖Σu‖² is known as integers, so the mean is known exactly.
    n, dim, surplus = 1_000_000, 8, 354_000
    rows = torch.zeros(n, dim)
    index = torch.arange(n)
    rows[index, index % dim] = torch.where(index // dim % 2 == 0, 1.0, -1.0) * (1 + index % 5)
    rows[:surplus, 0], rows[:surplus, 1:] = 1, 0
    signs = rows.sign()
    total = signs.double().sum(0).square().sum()
    right = (total - n) / (n * (n - 1))
    ours = dispatch.moments(as_rows(rows), backend="cpu")
    mean = (ours.unit_sum.square().sum() - ours.unit_sum_squared.sum()) / (n * (n - 1))
    assert abs(mean - right) <= 1e-9 * right + 1e-14
