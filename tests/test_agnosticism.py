"""The result does not depend on how rows lie in memory, how they are split, or how many threads read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastaniso.ops import dispatch
from fastaniso.rows import as_rows
from fastaniso.state import Gram, GroupMoments, Moments, Neighbors, Pairs, StateMismatchError

State = Moments | Gram | GroupMoments | Pairs | Neighbors


def group_moments(hidden: Tensor, mask: Tensor | None = None, **options: object) -> GroupMoments:
    rows = as_rows(hidden, mask)
    groups = (torch.arange(rows.count) % 5).view(rows.values.shape[:2])
    return dispatch.group_moments(rows, groups, 5, **options)  # type: ignore[arg-type]


OPS: dict[str, Callable[..., State]] = {
    "moments": lambda hidden, mask=None, **options: dispatch.moments(as_rows(hidden, mask), **options),
    "gram": lambda hidden, mask=None, **options: dispatch.gram(as_rows(hidden, mask), **options),
    "group_moments": group_moments,
}
PAIR_OPS: dict[str, Callable[..., State]] = {
    "pairs": lambda hidden, mask=None, **options: dispatch.pairs(
        as_rows(hidden, mask), bins=128, uniformity_t=(2.0,), thresholds=(0.1,), **options
    ),
    "neighbors": lambda hidden, mask=None, **options: dispatch.neighbors(as_rows(hidden, mask), k=3, **options),
}
linear_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS)
pair_op = pytest.mark.parametrize("op", PAIR_OPS.values(), ids=PAIR_OPS)
every_op = pytest.mark.parametrize("op", (OPS | PAIR_OPS).values(), ids=OPS | PAIR_OPS)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def assert_same_bits(a: State, b: State) -> None:
    for name in a._tensors:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def assert_close(a: State, b: State) -> None:
    for name in a._tensors:
        ours, theirs = getattr(a, name), getattr(b, name)
        if ours.dtype == torch.int64:
            assert torch.equal(ours, theirs), name
        else:
            scale = theirs[theirs.isfinite()].abs().max() if theirs.isfinite().any() else 0
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6 * float(scale))


@every_op
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_same_bits_for_any_number_of_threads_and_over_runs(
    isa: str, op: Callable[..., State], dtype: torch.dtype
) -> None:
    # More rows than one block of packed ones; fewer where the work is that of all pairs.
    rows = 5_000 if op in PAIR_OPS.values() else 12_000
    hidden = torch.randn(rows, 130).to(dtype)
    mask = torch.rand(rows) > 0.2
    with threads(1):
        once = op(hidden, mask)
    for count in (1, 2, 3, 7):
        with threads(count):
            assert_same_bits(op(hidden, mask), once)


@every_op
def test_same_bits_for_any_row_stride(isa: str, op: Callable[..., State]) -> None:
    hidden = torch.randn(6, 50, 33)
    packed = op(hidden)
    padded = torch.full((6, 50, 40), torch.nan)
    padded[..., :33] = hidden
    assert_same_bits(op(padded[..., :33]), packed)
    every_other = torch.full((6, 100, 33), torch.nan)
    every_other[:, ::2] = hidden
    assert_same_bits(op(every_other[:, ::2]), packed)
    shifted = torch.full((6, 51, 33), torch.nan)
    shifted[:, 1:] = hidden
    assert_same_bits(op(shifted[:, 1:]), packed)
    # Swapped axes read the rows in another order: the same sums up to rounding.
    if op not in (group_moments, *PAIR_OPS.values()):
        assert_close(op(hidden.transpose(0, 1)), packed)


@every_op
def test_a_repeated_row_needs_no_memory(op: Callable[..., State]) -> None:
    row = torch.randn(1, 24)
    assert_same_bits(op(row.expand(1000, 24)), op(row.repeat(1000, 1)))


@every_op
def test_memory_maps_are_read_in_place(op: Callable[..., State], tmp_path: Path) -> None:
    hidden = np.random.default_rng(0).standard_normal((500, 20), dtype=np.float32)
    np.save(tmp_path / "rows.npy", hidden)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert_same_bits(op(mapped), op(torch.from_numpy(hidden)))


@linear_op
def test_a_mask_drops_rows(isa: str, op: Callable[..., State]) -> None:
    hidden = torch.randn(3000, 40)
    mask = torch.rand(3000) > 0.5
    hidden[~mask] = torch.nan
    masked = op(hidden, mask)
    if op is group_moments:
        groups = (torch.arange(3000) % 5)[mask][None]
        dropped = dispatch.group_moments(as_rows(hidden[mask]), groups, 5)
        assert torch.equal(masked.counts, dropped.counts)
        torch.testing.assert_close(masked.unit_sum, dropped.unit_sum, rtol=1e-6, atol=1e-6)
        return
    dropped = op(hidden[mask])
    assert masked.counts[1] == (~mask).sum()
    masked.counts[1] = 0
    assert_close(masked, dropped)


@pair_op
def test_a_mask_drops_pairs(isa: str, op: Callable[..., State]) -> None:
    hidden = torch.randn(600, 40)
    mask = torch.rand(600) > 0.5
    hidden[~mask] = torch.nan
    masked, dropped = op(hidden, mask), op(hidden[mask])
    assert isinstance(masked, Pairs | Neighbors)
    assert masked.counts[1] > 0
    masked.counts[1] = 0
    kept = torch.nonzero(mask)[:, 0]
    if isinstance(masked, Neighbors):
        assert isinstance(dropped, Neighbors)
        assert (masked.indices[~mask] == -1).all()
        assert torch.equal(masked.cosines[mask], dropped.cosines)
        assert torch.equal(masked.indices[mask], kept[dropped.indices])
        return
    assert isinstance(dropped, Pairs)
    assert masked.extrema_at is not None
    assert dropped.extrema_at is not None
    assert torch.equal(masked.extrema_at, kept[dropped.extrema_at])
    masked.extrema_at.copy_(dropped.extrema_at)
    assert_close(masked, dropped)


@linear_op
@settings(deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(0, 700), max_size=4), seed=st.integers(0, 2**31))
def test_parts_merge_to_the_whole(op: Callable[..., State], cuts: list[int], seed: int) -> None:
    hidden = torch.randn(700, 18, generator=torch.Generator().manual_seed(seed)) + 2
    hidden[seed % 700] = 0
    edges = [0, *sorted(cuts), 700]

    def part(start: int, stop: int) -> State:
        if op is group_moments:
            groups = (torch.arange(start, stop) % 5)[None]
            rows = as_rows(hidden[start:stop])
            return dispatch.group_moments(rows, groups.view(rows.values.shape[:2]), 5, start=start, source="rows")
        return op(hidden[start:stop], start=start, source="rows")

    parts = [part(start, stop) for start, stop in pairwise(edges)]
    merged = parts[0]
    for other in parts[1:]:
        merged = merged.merge(other)  # type: ignore[arg-type]
    assert_close(merged, op(hidden))
    assert merged.coverage.ranges == {"rows": ((0, 700),)}
    if parts[0].coverage.ranges:
        with pytest.raises(StateMismatchError, match="count them twice"):
            merged.merge(parts[0])  # type: ignore[arg-type]


def test_rows_beyond_int32(isa: str, tmp_path: Path) -> None:
    # A sparse file of more than 2³¹ numbers, all zero but for a few rows at its end.
    n, dim = 700_000, 4096
    mapped = np.memmap(tmp_path / "sparse.bin", dtype=np.float16, mode="w+", shape=(n, dim))
    mapped[n - 3 :] = 1
    hidden = torch.from_numpy(mapped)
    mask = torch.zeros(n, dtype=torch.bool)
    mask[n - 4 :] = True
    state = dispatch.moments(as_rows(hidden, mask))
    assert state.counts.tolist() == [3, n - 4, 1, 0, n - 4]
    assert (state.sum == 3).all()
    gram = dispatch.gram(as_rows(hidden[n - 5 :], mask[n - 5 :]), unit=False)
    assert (gram.scatter == 0).all()
