"""The gram op: every instruction set × dtype × named case against float64 on the same rounded inputs."""

from __future__ import annotations

import pytest
import tolerance
import torch
from cases import CASES, DTYPES, make
from test_moments import kept

from fastaniso.ops import dispatch
from fastaniso.rows import as_rows


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gram(isa: str, dtype: str, case: str) -> None:
    rows = as_rows(*make(case, dtype))
    ours = dispatch.gram(rows, backend="cpu")
    right = dispatch.gram(rows, backend="reference")

    assert torch.equal(ours.counts, right.counts)
    values, units = kept(rows)
    assert ((ours.sums - right.sums).abs() <= tolerance.sums(values, units, DTYPES[dtype])).all()
    for name, entries, kept_first, grid in (("scatter", values, 25, 0), ("unit_scatter", units, 64, 2**-16)):
        error = (getattr(ours, name) - getattr(right, name)).abs()
        bound = tolerance.scatter(entries, DTYPES[dtype], fused=isa != "scalar", kept_first=kept_first, grid=grid)
        assert (error <= bound).all(), f"{name}: {(error / bound).max():.2f} times the bound"
        assert torch.equal(getattr(ours, name), getattr(ours, name).T)


def test_only_what_was_asked_for(isa: str) -> None:
    rows = as_rows(torch.randn(50, 9))
    both = dispatch.gram(rows, backend="cpu")
    raw = dispatch.gram(rows, unit=False, backend="cpu")
    unit = dispatch.gram(rows, raw=False, backend="cpu")
    assert raw.unit_scatter is None
    assert unit.scatter is None
    assert torch.equal(raw.scatter, both.scatter)
    assert torch.equal(unit.unit_scatter, both.unit_scatter)


@pytest.mark.parametrize("case", ["isotropic", "drifted", "one_huge_dimension"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_covariance_not_worse_than_torch_in_float32(isa: str, dtype: str, case: str) -> None:
    values, _ = make(case, dtype)
    right = dispatch.gram(as_rows(values), unit=False, backend="reference").scatter
    ours = dispatch.gram(as_rows(values), unit=False, backend="cpu").scatter
    theirs = torch.cov(values.float().T, correction=0).double() * len(values)
    # A few roundings of what is measured: below that the comparison is a toss.
    assert (ours - right).norm() <= (theirs - right).norm() + 4 * tolerance.rounding(torch.float32) * right.norm()


def test_moments_are_those_of_the_moments_op(isa: str) -> None:
    values = torch.randn(3000, 33)
    values[17] = 0
    rows = as_rows(values)
    gram, moments = dispatch.gram(rows, backend="cpu"), dispatch.moments(rows, backend="cpu")
    assert torch.equal(gram.counts, moments.counts)
    torch.testing.assert_close(gram.totals, moments.totals, rtol=1e-6, atol=0)
    torch.testing.assert_close(gram.sums, moments.sums, rtol=1e-5, atol=1e-3)
