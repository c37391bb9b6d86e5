"""The group_moments op: every instruction set × dtype × named case against float64 on the same rounded inputs."""

from __future__ import annotations

import pytest
import tolerance
import torch
from cases import CASES, DTYPES, make

from fastaniso.ops import dispatch
from fastaniso.rows import as_rows

GROUPS = 7


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_group_moments(isa: str, dtype: str, case: str) -> None:
    rows = as_rows(*make(case, dtype))
    groups = (torch.arange(rows.count) * 31 % (GROUPS + 2) - 1)[None]  # −1 and GROUPS are no groups
    ours = dispatch.group_moments(rows, groups, GROUPS, backend="cpu", start=5)
    right = dispatch.group_moments(rows, groups, GROUPS, backend="reference", start=5)

    assert torch.equal(ours.counts, right.counts)
    assert torch.equal(ours.dropped, right.dropped)
    # Unit rows are added in float64: only the norm is rounded, and each of up to n terms has its error.
    relative = tolerance.norms(rows.dim, DTYPES[dtype])
    absolute = right.counts.double()[:, None]
    assert ((ours.unit_sum - right.unit_sum).abs() <= relative * absolute).all()
    torch.testing.assert_close(ours.unit_squared, right.unit_squared, rtol=1e-12, atol=0)


def test_more_groups_than_rows(isa: str) -> None:
    rows = as_rows(torch.randn(3, 5))
    state = dispatch.group_moments(rows, torch.tensor([[999, 0, 999]]), 1000, backend="cpu")
    assert state.counts.tolist() == [1, *[0] * 998, 2]
    assert state.unit_sum[1:999].count_nonzero() == 0
