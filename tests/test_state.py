"""States: merging, refusals, and files that are damaged or something else."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from fastaniso.heads import as_heads
from fastaniso.ops import dispatch as ops
from fastaniso.rows import as_rows
from fastaniso.state import (
    NO_ROW,
    Attention,
    CorruptStateError,
    Coverage,
    Gram,
    GroupMoments,
    HeadMoments,
    Moments,
    Neighbors,
    PairCoverage,
    Pairs,
    State,
    StateMismatchError,
    bytes_to_state,
    load_state,
    save_state,
    state_to_bytes,
)

X = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3
BACKEND = "reference"


def _moments(x: torch.Tensor = X, **where: Any) -> Moments:
    return ops.moments(as_rows(x), backend=BACKEND, **where)


def _gram(x: torch.Tensor = X, **options: Any) -> Gram:
    return ops.gram(as_rows(x), backend=BACKEND, **options)


def _groups(x: torch.Tensor = X, groups: int = 3, **where: Any) -> GroupMoments:
    return ops.group_moments(as_rows(x), (torch.arange(len(x)) % 3)[None], groups, backend=BACKEND, **where)


def _pairs(x: torch.Tensor = X, **options: Any) -> Pairs:
    asked: dict[str, Any] = {"bins": 64, "uniformity_t": (2.0,), "thresholds": (0.5, 0.9), **options}
    return ops.pairs(as_rows(x), backend=BACKEND, **asked)


def _neighbors(x: torch.Tensor = X, k: int = 3, **options: Any) -> Neighbors:
    return ops.neighbors(as_rows(x), k=k, backend=BACKEND, **options)


def _attention(x: torch.Tensor = X, **options: Any) -> Attention:
    heads = as_heads(x.view(1, 1, -1, 4), x.view(1, 1, -1, 4))
    return ops.attention(heads, backend=BACKEND, window=5, bins=16, positions=3, **options)


def _head_moments(x: torch.Tensor = X, **where: Any) -> HeadMoments:
    return HeadMoments.of([_moments(x, **where), _moments(x + 1, **where)])


MAKERS = {"Moments": _moments, "Gram": _gram, "GroupMoments": _groups, "Pairs": _pairs, "Neighbors": _neighbors}
MAKERS |= {"Attention": _attention, "HeadMoments": _head_moments}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Any:
    return MAKERS[request.param]


def _assert_equal(a: State, b: State, **tolerance: float) -> None:
    assert type(a) is type(b)
    assert (a.dim, a.coverage, a.provenance) == (b.dim, b.coverage, b.provenance)
    for name in a._tensors:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), **(tolerance or {"rtol": 0, "atol": 0}))


def _empty_like(state: State) -> State:
    if isinstance(state, GroupMoments):
        return GroupMoments.empty(state.dim, state.groups)
    if isinstance(state, HeadMoments):
        return HeadMoments.empty(state.dim, state.heads)
    if isinstance(state, Pairs):
        settings = {"uniformity_t": state.uniformity_t, "thresholds": state.thresholds}
        return Pairs.empty(state.dim, bins=state.bins, moments=state.moments is not None, **settings)
    if isinstance(state, Neighbors):
        return Neighbors.empty(state.dim, state.k, dtype=state.cosines.dtype)
    if isinstance(state, Attention):
        return Attention.empty(state.dim, state.heads, window=5, bins=16, positions=3)
    return type(state).empty(state.dim)


def test_empty_is_the_identity(make: Any) -> None:
    state = make(source="a", start=0)
    _assert_equal(state.merge(_empty_like(state)), state)
    _assert_equal(_empty_like(state).merge(state), state)


def test_merging_changes_neither_part(make: Any) -> None:
    a, b = make(X[:9], source="a", start=0), make(X[9:], source="a", start=9)
    before = a.to_dict()
    merged = a.merge(b)
    assert all(before[name] is value for name, value in a.to_dict().items() if isinstance(value, torch.Tensor))
    if isinstance(merged.coverage, PairCoverage):
        assert merged.coverage.area("a", (0, 20), "a", (0, 20)) == 9 * 9 + 11 * 11
    else:
        assert merged.coverage.ranges == {"a": ((0, 20),)}


def test_split_is_whole_far_from_zero() -> None:
    """Central scatters merge without the digits that Σxxᵀ − n·x̄x̄ᵀ loses at a mean of 1e6."""
    x = X + 1e6
    merged = _gram(x[:7]).merge(_gram(x[7:8])).merge(_gram(x[8:]))
    centred = x - x.mean(0)
    torch.testing.assert_close(merged.scatter, centred.T @ centred, rtol=1e-9, atol=1e-8)


def test_what_does_not_match_is_refused() -> None:
    for a, b, message in (
        (_moments(), _moments(X[:, :3]), "dimension 4 and 3"),
        (_moments(), _gram(), "a Moments merges with a Moments, not with Gram"),
        (_gram(), _gram(raw=False), r"holds \['scatter', 'unit_scatter'\], the other \['unit_scatter'\]"),
        (_groups(groups=3), _groups(groups=4), "3 and 4 groups"),
    ):
        with pytest.raises(StateMismatchError, match=message):
            a.merge(b)  # type: ignore[arg-type]


def test_first_invalid_row_is_the_first_of_all() -> None:
    bad = X.clone()
    bad[5] = 0
    late, early = _moments(bad, start=100), _moments(bad, start=0)
    assert late.merge(early).counts[4] == early.merge(late).counts[4] == 5
    assert _moments().counts[4] == NO_ROW


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), max_size=8))
def test_coverage_is_a_set_of_rows(ranges: list[tuple[int, int]]) -> None:
    coverage, rows = Coverage(), set[int]()
    for start, length in ranges:
        new = set(range(start, start + length))
        part = Coverage.of("a", start, start + length)
        if rows & new:
            with pytest.raises(StateMismatchError, match="count them twice"):
                coverage.union(part)
            continue
        coverage, rows = coverage.union(part), rows | new
    covered = [row for start, stop in coverage.ranges.get("a", ()) for row in range(start, stop)]
    assert covered == sorted(rows)
    edges = [edge for pair in coverage.ranges.get("a", ()) for edge in pair]
    assert len(set(edges)) == len(edges), "ranges that touch are one"


def test_dict_and_file_give_the_state_back(make: Any, tmp_path: Path) -> None:
    state = make(source="rows.npy", start=7)
    _assert_equal(type(state).from_dict(state.to_dict()), state)
    save_state(state, tmp_path / "state.safetensors")
    _assert_equal(load_state(tmp_path / "state.safetensors"), state)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize(("raw", "unit"), [(True, False), (False, True)])
def test_absent_scatters_stay_absent(raw: bool, unit: bool, tmp_path: Path) -> None:
    save_state(_gram(raw=raw, unit=unit), tmp_path / "gram")
    loaded = load_state(tmp_path / "gram")
    assert isinstance(loaded, Gram)
    assert (loaded.scatter is not None, loaded.unit_scatter is not None) == (raw, unit)


def test_saving_over_a_state_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    save_state(_moments(), path)

    def full(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        save_state(_moments(X[:3]), path)
    _assert_equal(load_state(path), _moments())
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_truncated_files_are_refused(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    save_state(make(), path)
    whole = path.read_bytes()
    for length in (0, 4, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptStateError):
            load_state(path)


def test_no_flipped_bit_goes_unseen(tmp_path: Path) -> None:
    path = tmp_path / "state"
    save_state(_moments(), path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(bytes(damaged))
        try:
            loaded = load_state(path)
        except CorruptStateError:
            continue
        _assert_equal(loaded, _moments())


def test_bytes_of_a_state_are_those_of_a_file(make: Any, tmp_path: Path) -> None:
    state, path = make(), tmp_path / "state"
    _assert_equal(bytes_to_state(state_to_bytes(state)), state)
    path.write_bytes(state_to_bytes(state))
    _assert_equal(load_state(path), state)
    save_state(state, path)
    _assert_equal(bytes_to_state(path.read_bytes()), state)


def test_damaged_and_foreign_bytes_are_refused() -> None:
    whole = state_to_bytes(_moments())
    for length in (0, 4, 40, len(whole) // 2, len(whole) - 1):
        with pytest.raises(CorruptStateError, match="content"):
            bytes_to_state(whole[:length])
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        try:
            read = bytes_to_state(bytes(damaged))
        except CorruptStateError:
            continue
        _assert_equal(read, _moments())
    with pytest.raises(CorruptStateError, match="not a fastaniso state"):
        bytes_to_state(save({"weight": torch.zeros(3)}))


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CorruptStateError, match="not a fastaniso state"):
        load_state(path)
    path.write_bytes(b"\x93NUMPY" + bytes(200))
    with pytest.raises(CorruptStateError, match="not a readable safetensors file"):
        load_state(path)
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "missing")


def test_other_kinds_and_versions_are_refused() -> None:
    content = _moments().to_dict()
    without = {name: value for name, value in content.items() if name != "sums"}
    for wrong, message in (
        ({**content, "kind": "Gram"}, "expected a stored Moments, got 'Gram'"),
        ({**content, "version": 2}, "format version 2; this fastaniso reads 1"),
        (without, "Moments.sums: expected torch.float64.* got NoneType"),
        (
            {**content, "sums": content["sums"].float()},
            r"Moments.sums: expected torch.float64\(4, 4\), got torch.float32",
        ),
        ({**content, "dim": 5}, r"expected torch.float64\(4, 5\)"),
        ({**content, "dim": "x"}, "incomplete Moments"),
        ({**content, "coverage": 3}, "incomplete Moments"),
        ({}, "expected a stored Moments, got None"),
    ):
        with pytest.raises(CorruptStateError, match=message):
            Moments.from_dict(wrong)


def test_pairs_of_other_contents_do_not_merge() -> None:
    state = _pairs()
    for other, message in (
        (_pairs(bins=128), "one Pairs holds 64 bins, moments, extrema, the other 128 bins, moments, extrema"),
        (_pairs(bins=0, extrema=False), "the other moments"),
        (_pairs(thresholds=(0.5,)), r"states of thresholds \(0.5, 0.9\) and \(0.5,\) do not merge"),
        (_pairs(uniformity_t=()), "states of uniformity_t"),
    ):
        with pytest.raises(StateMismatchError, match=message):
            state.merge(other)
    with pytest.raises(StateMismatchError, match=r"states of 3 neighbours in torch.float64 and 2 in torch.float64"):
        _neighbors().merge(_neighbors(k=2))


def test_no_pair_is_counted_twice() -> None:
    whole = _pairs(source="a")
    rows, others = as_rows(X[:5]), as_rows(X[5:12])
    block = {"bins": 64, "uniformity_t": (2.0,), "thresholds": (0.5, 0.9), "backend": BACKEND}
    part = ops.pairs(rows, others, **block, source="a", other_source="a", other_start=5)  # type: ignore[arg-type]
    with pytest.raises(
        StateMismatchError, match=r"pairs of rows \(0, 5\) of 'a' with rows \(5, 12\) of 'a' are in both"
    ):
        whole.merge(part)
    with pytest.raises(StateMismatchError, match="some rows would be paired with themselves"):
        ops.pairs(rows, others, **block, source="a", other_source="a", other_start=3)  # type: ignore[arg-type]
    elsewhere = ops.pairs(rows, others, **block, source="a", other_source="b", other_start=5)  # type: ignore[arg-type]
    assert whole.merge(elsewhere).counts[0] == whole.counts[0] + 35


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), unique=True))
def test_coverage_of_pairs_knows_every_tile(tiles: list[tuple[int, int]]) -> None:
    def edges(i: int) -> tuple[int, int]:
        return 10 * i, 10 * i + 10

    coverage = PairCoverage()
    for i, j in tiles:
        coverage = coverage.union(PairCoverage.of("a", edges(i), "b", edges(j)))
    for i in range(6):
        for j in range(6):
            assert coverage.area("a", edges(i), "b", edges(j)) == 100 * ((i, j) in tiles)
    assert coverage.area("a", (5, 55), "b", (0, 60)) <= 100 * len(tiles)
    assert PairCoverage.from_plain(coverage.to_plain()) == coverage
    if tiles:
        with pytest.raises(StateMismatchError, match="count them twice"):
            coverage.union(PairCoverage.of("a", edges(tiles[0][0]), "b", edges(tiles[0][1])))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 20), max_size=3), st.integers(0, 2**31))
def test_moments_of_pairs_merge_in_any_order(cuts: list[int], seed: int) -> None:
    edges = [0, *sorted(cuts), 20]
    y = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    parts = [ops.pairs(as_rows(X[a:b]), as_rows(y), backend=BACKEND, start=a) for a, b in pairwise(edges)]
    whole = ops.pairs(as_rows(X), as_rows(y), backend=BACKEND)
    for order in (parts, parts[::-1]):
        merged = order[0]
        for part in order[1:]:
            merged = merged.merge(part)
        for name in ("moments", "extrema", "extrema_at"):
            torch.testing.assert_close(getattr(merged, name), getattr(whole, name), rtol=1e-10, atol=1e-12)


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    from fastaniso.state.storage import _checksum

    state = _moments()
    content = state.to_dict()
    tensors = {name: content.pop(name) for name in state._tensors}
    for change, message in (
        ({"version": 9}, "format version 9"),
        ({"kind": "Sketch"}, "unknown kind of state 'Sketch'"),
    ):
        header = json.dumps({**content, **change})
        save_file(tensors, tmp_path / "state", {"fastaniso": header, "sha256": _checksum(header, tensors)})
        with pytest.raises(CorruptStateError, match=message):
            load_state(tmp_path / "state")


def test_empty_states_copy_nothing_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU would be waited for, at every update of an accumulator."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("values were copied from the host")

    for place, name in ((torch, "tensor"), (torch, "as_tensor"), (torch.Tensor, "new_tensor")):
        monkeypatch.setattr(place, name, refuse)
    for empty in (
        Moments.empty(4),
        Gram.empty(4),
        GroupMoments.empty(4, 3),
        Pairs.empty(4, bins=8, thresholds=(0.5,), uniformity_t=(2.0,)),
        Neighbors.empty(4, 2, 0, 5),
        Attention.empty(4, 2),
    ):
        empty._check_shapes()
    with pytest.raises(AssertionError, match="copied from the host"):
        torch.tensor([1.0])
    assert Moments.empty(4).counts.tolist() == [0, 0, 0, 0, NO_ROW]
    assert Moments.empty(4).totals.tolist() == [0.0, 0.0, float("inf"), -float("inf"), 0.0, 0.0]
