"""The moments op: every instruction set × dtype × named case against float64 on the same rounded inputs."""

from __future__ import annotations

import pytest
import tolerance
import torch
from cases import CASES, DTYPES, make

from fastaniso.ops import dispatch, reference
from fastaniso.rows import Rows, as_rows
from fastaniso.statistics import cosine


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
    # Rows ±e_k, as many of each sign but for 1,414 of e_0: ‖Σu‖² is known in integers, so the mean is known exactly.
    n, dim, surplus = 1_000_000, 8, 1_414
    index = torch.arange(n)
    rows = torch.zeros(n, dim)
    rows[index, index % dim] = torch.where(index // dim % 2 == 0, 1.0, -1.0) * (1 + index % 5)
    rows[:surplus] = torch.eye(1, dim)
    total = rows.sign().double().sum(0).square().sum()
    right = ((total - n) / (n * (n - 1))).item()
    assert 5e-7 < abs(right) < 5e-6
    ours = cosine.mean(dispatch.moments(as_rows(rows), backend="cpu")).item()
    assert abs(ours - right) <= 1e-9 * abs(right) + 1e-14


@pytest.mark.parametrize("spread", [1e-1, 1e-2, 1e-3])
def test_a_collapsed_cloud_keeps_its_distance_from_one(isa: str, spread: float) -> None:
    rows = (10 + spread * torch.randn(3000, 48, dtype=torch.float64)).float()
    scatter = dispatch.gram(as_rows(rows), raw=False, backend="reference").unit_scatter
    right = (scatter.trace() / (len(rows) - 1)).item()  # 1 − mean, without cancellation
    ours = 1 - cosine.mean(dispatch.moments(as_rows(rows), backend="cpu")).item()
    # Differences from the pivot keep float32's digits; 1 − mean itself has float64's. Without a fused multiply-add each
    # unit row is rounded before the pivot is subtracted.
    fused = 1e-6 * right + 1e-14
    assert abs(ours - right) <= (fused if isa != "scalar" else fused + 2**-23 * right**0.5)
