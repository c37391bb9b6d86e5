"""States: merging, refusals, and files that are damaged or something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fastaniso.ops import dispatch as ops
from fastaniso.rows import as_rows
from fastaniso.state import (
    NO_ROW,
    CorruptStateError,
    Coverage,
    Gram,
    GroupMoments,
    Moments,
    State,
    StateMismatchError,
    load_state,
    save_state,
)

X = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3
BACKEND = "reference"


def _moments(x: torch.Tensor = X, **where: Any) -> Moments:
    return ops.moments(as_rows(x), backend=BACKEND, **where)


def _gram(x: torch.Tensor = X, **options: Any) -> Gram:
    return ops.gram(as_rows(x), backend=BACKEND, **options)


def _groups(x: torch.Tensor = X, groups: int = 3, **where: Any) -> GroupMoments:
    return ops.group_moments(as_rows(x), (torch.arange(len(x)) % 3)[None], groups, backend=BACKEND, **where)


MAKERS = {"Moments": _moments, "Gram": _gram, "GroupMoments": _groups}


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
