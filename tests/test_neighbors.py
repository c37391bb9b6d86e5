"""The neighbors op: every instruction set × dtype × named case against float64 on the same rounded inputs."""

from __future__ import annotations

from functools import lru_cache

import pytest
import tolerance
import torch
from cases import CASES, DTYPES, make
from conftest import cpu_backends
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastaniso.ops import dispatch, reference
from fastaniso.rows import Rows, as_rows
from fastaniso.state import Neighbors
from fastaniso.state.neighbors import _best


def cosine_table(rows: Rows, other: Rows | None) -> Tensor:
    """Float64 cosines (n, m), −inf where there is no pair."""
    theirs = (None, None) if other is None else (other.values, other.mask)
    cosines, i, j, _ = reference._cosines(rows.values, rows.mask, *theirs, 0, 0)
    table = cosines.new_full((rows.count, (other or rows).count), -torch.inf)
    table[i[:, None], j] = cosines
    return table if other is not None else table.fill_diagonal_(-torch.inf)


def check(ours: Neighbors, table: Tensor, one: float) -> None:
    """The cosines found are the best there are, each is that of its index, in order, none twice."""
    k = ours.k
    best = torch.cat((table, table.new_full((len(table), k), -torch.inf)), 1).topk(k).values
    found = ours.indices >= 0
    assert torch.equal(found, ours.cosines > -torch.inf)
    assert torch.equal(found, best > -torch.inf)
    assert ((ours.cosines.double() - best)[found].abs() <= one).all()
    claimed = table.gather(1, ours.indices.clamp(min=0)) if table.shape[1] else best
    assert ((ours.cosines.double() - claimed)[found].abs() <= one).all()
    assert (ours.cosines[:, 1:] <= ours.cosines[:, :-1]).all()
    equal = ours.cosines[:, 1:] == ours.cosines[:, :-1]
    in_order = (ours.indices[:, 1:] > ours.indices[:, :-1]) | ~found[:, 1:]
    assert in_order[equal].all()
    # Each empty place is somebody else.
    each = ours.indices.where(found, torch.arange(-k, 0)).sort(1).values
    assert (each[:, 1:] != each[:, :-1]).all()


@lru_cache(maxsize=1)
def expected(dtype: str, case: str) -> tuple[Rows, Tensor, Tensor]:
    """The rows of a case, float64 cosines, and counts: the same for each instruction set, whose turns come together."""
    rows = as_rows(*make(case, dtype))
    return rows, cosine_table(rows, None), dispatch.neighbors(rows, k=7, backend="reference").counts


@pytest.mark.parametrize("isa", cpu_backends(), indirect=True)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_neighbors(isa: str, dtype: str, case: str) -> None:
    rows, table, counts = expected(dtype, case)
    ours = dispatch.neighbors(rows, k=7, backend="cpu")
    assert torch.equal(ours.counts, counts)
    check(ours, table, tolerance.cosine(rows.dim, DTYPES[dtype]))


@lru_cache(maxsize=1)
def expected_of_two(dtype: str, case: str) -> tuple[Rows, Rows, Tensor, tuple[Neighbors, Neighbors]]:
    values, mask = make(case, dtype)
    rows = as_rows(values, mask)
    theirs = torch.randn(131, rows.dim, generator=torch.Generator().manual_seed(7))
    theirs[5] = 0
    other = as_rows(theirs.to(values.dtype), torch.arange(131) % 7 != 3)
    return rows, other, cosine_table(rows, other), dispatch.mutual_neighbors(rows, other, k=5, backend="reference")


@pytest.mark.parametrize("isa", cpu_backends(), indirect=True)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_neighbors_between_two_sets(isa: str, dtype: str, case: str) -> None:
    rows, other, table, (right_here, right_there) = expected_of_two(dtype, case)
    one = tolerance.cosine(rows.dim, DTYPES[dtype])
    here, there = dispatch.mutual_neighbors(rows, other, k=5, backend="cpu")
    check(here, table, one)
    check(there, table.T, one)
    assert torch.equal(here.counts, right_here.counts)
    assert torch.equal(there.counts, right_there.counts)
    alone = dispatch.neighbors(rows, other, k=5, backend="cpu")
    assert torch.equal(alone.indices, here.indices)
    assert torch.equal(alone.cosines, here.cosines)


@pytest.mark.parametrize("dim", [97, 384, 1000, 4096])
@pytest.mark.parametrize("drift", [0, 1])
def test_cosines_not_worse_than_torch(isa: str, dim: int, drift: int) -> None:
    # With as many neighbours as there are other rows, all cosines are given.
    rows = torch.randn(120, dim) + drift * torch.randn(dim)
    units = torch.nn.functional.normalize(rows.double(), dim=1)
    in_float32 = torch.nn.functional.normalize(rows, dim=1)
    right, other_row = units @ units.T, ~torch.eye(120, dtype=torch.bool)
    theirs = ((in_float32 @ in_float32.T).double() - right)[other_row].square().mean().sqrt()
    found = dispatch.neighbors(as_rows(rows), k=119, backend="cpu")
    ours = (found.cosines.double() - right.gather(1, found.indices)).square().mean().sqrt()
    # Both are rounding: over 7140 cosines of few rows their sizes agree to within some percent.
    assert ours <= 1.1 * theirs


@pytest.mark.parametrize("k", [1, 2, 16, 128])
def test_any_number_of_neighbours(isa: str, k: int) -> None:
    rows = as_rows(torch.randn(400, 24))
    check(dispatch.neighbors(rows, k=k, backend="cpu"), cosine_table(rows, None), tolerance.cosine(24, torch.float32))


def test_equal_cosines_go_by_index(isa: str) -> None:
    # All rows alike: the neighbours of each are the first others.
    ours = dispatch.neighbors(as_rows(torch.eye(1, 9).expand(1000, 9)), k=4, backend="cpu")
    assert (ours.cosines == 1).all()
    assert ours.indices[0].tolist() == [1, 2, 3, 4]
    assert ours.indices[2].tolist() == [0, 1, 3, 4]
    assert (ours.indices[5:] == torch.arange(4)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_none_is_worse_than_asked(isa: str, backend: str, dtype: str) -> None:
    values, mask = make("masked", dtype)
    rows = as_rows(values, mask)
    other = as_rows(torch.cat((values[::2].flip(0), values[:3] * 2)))  # some cosines are equal
    named = {"k": 6, "backend": backend, "other_start": 5}
    here, there = dispatch.mutual_neighbors(rows, other, **named)
    least = here.cosines[:, 2].contiguous()
    least[::3] = -torch.inf
    other_least = (there.cosines[:, 1] / 2 + there.cosines[:, 4] / 2).contiguous()
    fewer = dispatch.mutual_neighbors(rows, other, **named, least=least, other_least=other_least)
    alone = dispatch.neighbors(rows, other, **named, least=least)
    for all_, some, floor in ((here, fewer[0], least), (here, alone, least), (there, fewer[1], other_least)):
        left_out = all_.cosines < floor[:, None]
        assert left_out.any()
        assert torch.equal(some.counts, all_.counts)
        assert torch.equal(some.cosines, all_.cosines.masked_fill(left_out, -torch.inf))
        assert torch.equal(some.indices, all_.indices.masked_fill(left_out, -1))


@pytest.mark.parametrize(
    "least",
    [torch.zeros(9), torch.zeros(10).double(), torch.zeros(10, 2)[:, 0], torch.zeros(10, 1)],
    ids=lambda each: f"{tuple(each.shape)}-{each.dtype}-{each.stride()}",
)
def test_what_is_asked_of_rows_has_their_form(least: Tensor) -> None:
    rows = as_rows(torch.randn(10, 4))
    with pytest.raises(ValueError, match=r"^least: expected contiguous torch\.float32 \(10,\) on cpu, got "):
        dispatch.neighbors(rows, k=2, least=least)
    with pytest.raises(ValueError, match=r"^other_least: expected contiguous"):
        dispatch.mutual_neighbors(rows, rows, k=2, other_least=least)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 150), cut=st.integers(1, 149), k=st.integers(1, 9))
def test_blocks_merge_to_the_whole(seed: int, n: int, cut: int, k: int) -> None:
    hidden = torch.randn(n, 11, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    hidden[seed % n] *= seed % 3
    cut = min(cut, n - 1)
    first, last = as_rows(hidden[:cut]), as_rows(hidden[cut:])
    named = {"k": k, "backend": "cpu", "source": "rows"}
    here, there = dispatch.mutual_neighbors(first, last, **named, other_source="rows", other_start=cut)
    merged = there.merge(dispatch.neighbors(last, **named, start=cut)).merge(here)
    merged = merged.merge(dispatch.neighbors(first, **named))
    whole = dispatch.neighbors(as_rows(hidden), **named)
    assert torch.equal(merged.cosines, whole.cosines)
    assert torch.equal(merged.indices, whole.indices)
    assert torch.equal(merged.counts[:3], whole.counts[:3])
    assert merged.coverage.area("rows", (0, n), "rows", (0, n)) == n * n


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), n=st.integers(0, 12), k=st.integers(1, 9))
def test_lists_merge_alike_whatever_their_numbers_are(seed: int, n: int, k: int) -> None:
    """In order of cosine and then of index, among many that are equal, 0 and −0 and empty places."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([-1.0, -0.25, -0.0, 0.0, 0.25, 1.0])

    def lists() -> tuple[Tensor, Tensor]:
        cosines = values[torch.randint(0, 6, (n, k), generator=generator)]
        indices = torch.rand(n, 2 * k, generator=generator).argsort(1)[:, :k]
        empty = torch.rand(n, k, generator=generator) < 0.3
        return cosines.masked_fill(empty, -torch.inf), indices.masked_fill(empty, -1)

    def merged(dtype: torch.dtype, offset: int) -> tuple[Tensor, Tensor]:
        parts = [(c.to(dtype), torch.where(i < 0, i, i + offset)) for c, i in (first, second)]
        cosines, indices = _best(*parts[0], *parts[1])
        return cosines.float(), torch.where(indices < 0, indices, indices - offset)

    first, second = lists(), lists()
    cosines, indices = merged(torch.float32, 0)
    for row in range(n):
        both = zip(torch.cat((first[0][row], second[0][row])), torch.cat((first[1][row], second[1][row])), strict=True)
        best = sorted((-float(cosine), int(index)) for cosine, index in both)[:k]
        assert list(zip((-cosines[row]).tolist(), indices[row].tolist(), strict=True)) == best
    for dtype, offset in ((torch.float64, 0), (torch.float32, 2**31), (torch.float32, 2**33)):
        again = merged(dtype, offset)
        assert torch.equal(again[0], cosines)
        assert torch.equal(again[1], indices)


def test_opcheck() -> None:
    hidden, other = torch.randn(2, 5, 6), torch.randn(1, 7, 6)
    for arguments in (
        (hidden, torch.rand(2, 5) > 0.3, None, None, torch.rand(10), None, 3, False, 0, 0, "exact", "cpu"),
        (hidden.double(), None, other.double(), None, None, torch.rand(7).double(), 3, True, 3, 4, "fast", "cpu"),
    ):
        torch.library.opcheck(torch.ops.fastaniso.neighbors.default, arguments)
