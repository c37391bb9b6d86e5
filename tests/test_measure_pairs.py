"""All pairs and neighbours of stored rows: to the bit what rows in memory give, whatever they are stored as."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_sources_files import store
from torch import Tensor

import fastaniso
from fastaniso.ops import dispatch as ops
from fastaniso.pairing.tiles import blocks_of, visit_neighbors, visit_pairs
from fastaniso.progress import Progress
from fastaniso.rows import as_rows
from fastaniso.sources import open_source
from fastaniso.state import GroupMoments, Moments, Neighbors, Pairs, State

ROWS = torch.randn(310, 24, generator=torch.Generator().manual_seed(0)) + 0.3
SIZE = 64
OPTIONS: dict[str, Any] = {
    "pairs": True,
    "neighbors": 7,
    "bins": 128,
    "thresholds": (0.25, -0.5),
    "block_rows": SIZE,
}


def store_shards(path: Path, rows: Tensor) -> Path:
    path.mkdir()
    for number, part in enumerate(rows.split(130)):
        store(path / f"shard-{number}", "safetensors", part.clone())
    return path


def store_data_set(path: Path, rows: Tensor) -> Path:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"v": datasets.Sequence(datasets.Value("float32"), length=rows.shape[1])})
    datasets.Dataset.from_dict({"v": rows.tolist()}, features=features).save_to_disk(path, num_shards=2)
    return path


def store_table(path: Path, rows: Tensor, *, write: str, make: str) -> Path:
    pytest.importorskip("pyarrow")
    import test_sources_tables as tables

    stored: Path = getattr(tables, write)(path, tables.table(getattr(tables, make)(rows)))
    return stored


STORES: dict[str, Any] = {
    "npy": partial(store, kind="npy"),
    "safetensors": partial(store, kind="safetensors"),
    "pt": partial(store, kind="pt_dict"),
    "arrow_file": partial(store_table, write="write_file", make="fixed"),
    "arrow_stream": partial(store_table, write="write_stream", make="variable"),
    "parquet": partial(store_table, write="write_parquet", make="fixed"),
    "shards": store_shards,
    "data_set": store_data_set,
}


def in_memory(rows: Tensor, backend: str, size: int = SIZE) -> tuple[Pairs, Neighbors]:
    asked = Pairs.empty(rows.shape[1], bins=128, thresholds=(0.25, -0.5), uniformity_t=(2.0,))
    *_, pairs = visit_pairs(asked, blocks_of(as_rows(rows), size), backend=backend)
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    nobody = Neighbors.empty(rows.shape[1], 7, 0, len(rows), dtype=dtype)
    *_, neighbors = visit_neighbors(nobody, blocks_of(as_rows(rows), size), backend=backend)
    return pairs, neighbors


def check_equal(found: State, expected: State) -> None:
    """Every tensor to the last bit."""
    ours, theirs = found.to_dict(), expected.to_dict()
    for name, value in theirs.items():
        if isinstance(value, Tensor):
            assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("kind", STORES)
def test_stored_rows_give_the_bits_of_rows_in_memory(tmp_path: Path, kind: str, backend: str) -> None:
    path = STORES[kind](tmp_path / "rows", rows=ROWS)
    result = fastaniso.measure(path, backend=backend, **OPTIONS)
    pairs, neighbors = in_memory(ROWS, backend)
    check_equal(result.states["pairs"], pairs)
    check_equal(result.states["neighbors"], neighbors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_every_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    rows = ROWS.to(dtype)
    result = fastaniso.measure(store(tmp_path / "rows", "safetensors", rows), backend="cpu", **OPTIONS)
    pairs, neighbors = in_memory(rows, "cpu")
    check_equal(result.states["pairs"], pairs)
    check_equal(result.states["neighbors"], neighbors)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_linear_states_are_those_of_the_blocks_in_memory(tmp_path: Path, backend: str) -> None:
    path = store(tmp_path / "rows", "npy", ROWS)
    for gram in (True, False):
        result = fastaniso.measure(path, gram=gram, backend=backend, block_rows=SIZE)
        one = ops.gram if gram else ops.moments
        expected: Any = type(result.state).empty(24)
        for block in blocks_of(as_rows(ROWS), SIZE):
            expected = expected.merge(one(block.load(), backend=backend, start=block.start))
        check_equal(result.state, expected)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_groups_of_blocks_of_a_source(tmp_path: Path, backend: str) -> None:
    """The blocks of a source serve the op that no command asks for, too."""
    source = open_source(store_shards(tmp_path / "rows", ROWS))
    labels = torch.arange(len(ROWS)) % 5
    found = expected = GroupMoments.empty(24, 5)
    for start in range(0, len(ROWS), SIZE):
        ids = labels[None, start : start + SIZE]
        for_source, for_memory = (
            ops.group_moments(as_rows(rows), ids, 5, backend=backend)
            for rows in (source.rows(start, start + SIZE), ROWS[start : start + SIZE])
        )
        found, expected = found.merge(for_source), expected.merge(for_memory)
    check_equal(found, expected)


def test_the_blocks_are_those_of_rows_in_memory(tmp_path: Path) -> None:
    """Without ``block_rows`` the tiles are the library's own, so a file and a tensor give the same bits."""
    result = fastaniso.measure(store(tmp_path / "rows", "npy", ROWS), pairs=True, neighbors=3, bins=256)
    expected = fastaniso.pairs(ROWS, bins=256)
    assert result.pairs is not None
    assert result.pairs.to_dict() == expected.to_dict()
    assert (result.pairs.histogram.total == expected.histogram.total).all()
    nearest = fastaniso.nearest_neighbors(ROWS, 3)
    assert result.neighbors is not None
    assert torch.equal(result.neighbors.cosines, nearest.cosines)
    assert torch.equal(result.neighbors.indices, nearest.indices)
    hubs = fastaniso.hubness(ROWS, 3)
    assert result.hubness is not None
    assert result.hubness.to_dict() == hubs.to_dict()
    assert (result.hubness.occurrences == hubs.occurrences).all()


def test_two_roads_to_one_number(tmp_path: Path) -> None:
    result = fastaniso.measure(store(tmp_path / "rows", "npy", ROWS), backend="cpu", **OPTIONS)
    assert result.pairs is not None
    assert result.pairs.pairs == 310 * 309 // 2 == result.description.pairs // 2
    assert result.pairs.mean == pytest.approx(result.description.mean_cosine, abs=1e-7)
    assert result.pairs.std == pytest.approx(result.description.cosine_std, abs=1e-7)


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_few_rows(tmp_path: Path, kind: str, count: int) -> None:
    path = STORES[kind](tmp_path / "rows", rows=ROWS[:count])
    result = fastaniso.measure(path, pairs=True, neighbors=4)
    assert result.pairs is not None
    assert result.neighbors is not None
    assert result.description.n == count
    assert result.pairs.pairs == count * (count - 1) // 2
    assert result.neighbors.indices.shape == (count, 4)
    assert int((result.neighbors.indices >= 0).sum()) == count * (count - 1)
    json.loads(result.to_json())
    assert "all pairs" in str(result)


def test_rows_that_cannot_be_normalised_are_told_before_any_pair(tmp_path: Path) -> None:
    rows = ROWS.clone()
    rows[7] = 0
    rows[205, 3] = torch.nan
    path = store_shards(tmp_path / "rows", rows)
    told: list[Progress] = []
    with pytest.raises(fastaniso.InvalidRowsError, match=r"shard-0.safetensors:hidden: row 7 is zero"):
        fastaniso.measure(path, progress=told.append, **OPTIONS)
    assert {p.stage for p in told} == {"measuring"}
    result = fastaniso.measure(path, invalid="omit", **OPTIONS)
    assert result.pairs is not None
    assert result.neighbors is not None
    assert result.pairs.pairs == 308 * 307 // 2
    assert result.neighbors.indices[7].tolist() == [-1] * 7
    assert not torch.isin(result.neighbors.indices, torch.tensor([7, 205])).any()
    assert result.hubness is not None
    assert result.hubness.to_dict() == fastaniso.hubness(rows, 7, invalid="omit").to_dict()
    rows[7] = 1
    path = store_shards(tmp_path / "second", rows)
    with pytest.raises(fastaniso.InvalidRowsError, match=r"shard-1.safetensors:hidden: row 75 holds NaN or Inf"):
        fastaniso.measure(path)


def test_progress_tells_every_stage_to_its_end(tmp_path: Path) -> None:
    told: list[Progress] = []
    fastaniso.measure(store(tmp_path / "rows", "npy", ROWS), progress=told.append, **OPTIONS)
    tiles = 5 * 6 // 2
    assert [p.stage for p in told] == ["measuring"] * 5 + ["pairs"] * tiles + ["neighbors"] * tiles
    for stage, unit, total in (("measuring", "rows", 310), ("pairs", "pairs", 47895), ("neighbors", "pairs", 47895)):
        own = [p for p in told if p.stage == stage]
        assert own[-1].done == total
        assert own[-1].share == 1.0
        assert {p.unit for p in own} == {unit}
        assert all(a.done < b.done for a, b in pairwise(own))
        assert all(p.rate > 0 for p in own)


def test_a_result_saves_states_and_json(tmp_path: Path) -> None:
    result = fastaniso.measure(store(tmp_path / "rows", "npy", ROWS), **OPTIONS)
    written = result.save(tmp_path / "out")
    names = {path.name for path in written}
    assert {"measure.json", "vectors.safetensors", "pairs.safetensors", "neighbors.safetensors", "pairs.png"} <= names
    content = json.loads((tmp_path / "out" / "measure.json").read_text())
    assert result.pairs is not None
    assert content["pair_statistics"]["mean"] == result.pairs.mean
    assert content["pairs"] == 310 * 309
    for name, kind in (("pairs", Pairs), ("neighbors", Neighbors)):
        state = fastaniso.load_state(tmp_path / "out" / "states" / f"{name}.safetensors")
        assert isinstance(state, kind)
        check_equal(state, result.states[name])
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "out" / "states" / "neighbors.safetensors")
    assert stored["indices"].dtype == torch.int64
    assert stored["cosines"].shape == stored["indices"].shape == (310, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 63}, "bins: expected an int from 64 to 8192, got 63"),
        ({"bins": 8193}, "bins: "),
        ({"neighbors": 0}, "neighbors: expected an int from 1 to 128, got 0"),
        ({"neighbors": 129}, "neighbors: "),
        ({"neighbors": True}, "neighbors: "),
        ({"thresholds": (0.5, 1.5)}, "thresholds: expected cosines from -1 to 1"),
        ({"uniformity_t": 0.0}, "uniformity_t: expected a "),
        ({"uniformity_t": float("nan")}, "uniformity_t: "),
        ({"block_rows": 0}, "block_rows: expected a positive int, got 0"),
        ({"invalid": "maybe"}, "invalid: expected 'raise' or 'omit'"),
    ],
)
def test_options_are_checked_before_anything_is_opened(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fastaniso.measure("no/such/file.npy", pairs=True, **options)


def test_memory_is_planned_before_anything_is_read(tmp_path: Path) -> None:
    path = _sparse(tmp_path / "large", rows=10**7, dim=64)
    told: list[Progress] = []
    for options in ({"neighbors": 20}, {"pairs": True, "bins": 8192}, {}):
        with pytest.raises(MemoryError, match="memory_limit: 5 MB given"):
            fastaniso.measure(path, memory_limit="5 MB", gram=False, progress=told.append, **options)
    # Twenty cosines and indices of ten million rows, twice.
    with pytest.raises(MemoryError, match=r"needs 4\.8.* GB beside the input \(2\.4 GB of state"):
        fastaniso.measure(path, neighbors=20, memory_limit="4 GB", gram=False, progress=told.append)
    assert told == []


def _sparse(path: Path, *, rows: int, dim: int) -> Path:
    """A file of zeros that takes no space, but for the first number, which is 1."""
    path = path.with_suffix(".npy")
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))[0, 0] = 1
    return path


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_is_one_block_at_a_time(tmp_path: Path) -> None:
    """A sparse file larger than any memory: the linear pass stops after some blocks, and what it held was one."""
    dim, block_rows = 512, 1 << 13
    path = _sparse(tmp_path / "large", rows=1 << 27, dim=dim)
    told: list[int] = []

    def stop(progress: Progress) -> None:
        told.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
        if progress.steps == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        fastaniso.measure(path, gram=False, invalid="omit", block_rows=block_rows, progress=stop)
    state = stopped.value.checkpoint.states["vectors"]  # type: ignore[attr-defined]  # a MeasureInterrupted
    assert isinstance(state, Moments)
    assert state.counts[:3].tolist() == [1, 0, 20 * block_rows - 1]
    assert max(told) - told[0] < 2 * block_rows * dim * 4
