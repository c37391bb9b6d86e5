"""Stored vectors say what the same rows in memory say, whatever the blocks and files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import fastaniso
from fastaniso.progress import Progress

ROWS = torch.randn(500, 24, generator=torch.Generator().manual_seed(0)) + 0.3


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "rows.npy"
    np.save(path, ROWS.numpy())
    return path


@pytest.mark.parametrize("block_rows", [None, 1, 77, 500, 10_000])
def test_any_blocks_give_what_the_rows_in_memory_give(stored: Path, block_rows: int | None) -> None:
    found = fastaniso.measure(stored, block_rows=block_rows).description
    expected = fastaniso.describe(ROWS.double(), backend="reference")
    assert found.n == expected.n == 500
    assert found.mean_cosine == pytest.approx(expected.mean_cosine, rel=1e-7)
    assert found.cosine_std == pytest.approx(expected.cosine_std, rel=1e-6)
    assert found.effective_rank == pytest.approx(expected.effective_rank, rel=1e-6)


def test_several_files_are_one_set(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS[:200].numpy())
    torch.save({"hidden": ROWS[200:350]}, tmp_path / "b.pt")
    save_file({"hidden": ROWS[350:].clone()}, tmp_path / "c.safetensors")
    result = fastaniso.measure([tmp_path / name for name in ("a.npy", "b.pt", "c.safetensors")])
    assert result.description.mean_cosine == pytest.approx(fastaniso.mean_cosine(ROWS), rel=1e-7)
    assert len(result.state.coverage.ranges) == 3
    assert result.data[2].endswith("c.safetensors:hidden")


def test_the_same_file_twice_is_refused(stored: Path) -> None:
    with pytest.raises(ValueError, match=r"rows.npy is there twice: its rows would count twice"):
        fastaniso.measure([stored, stored])


def test_files_of_other_dimension_are_named(stored: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", ROWS[:, :5].numpy())
    with pytest.raises(ValueError, match=r"other.npy holds vectors of 5 numbers and .*rows.npy of 24"):
        fastaniso.measure([stored, tmp_path / "other.npy"])


def test_rows_that_cannot_be_normalised_are_named_by_their_place_in_the_file(tmp_path: Path) -> None:
    rows = ROWS.clone()
    rows[321] = 0
    np.save(tmp_path / "bad.npy", rows.numpy())
    with pytest.raises(fastaniso.InvalidRowsError, match="row 321 is zero"):
        fastaniso.measure(tmp_path / "bad.npy", block_rows=100)
    assert fastaniso.measure(tmp_path / "bad.npy", invalid="omit").description.dropped.zero == 1


def test_memory_limit_is_checked_before_reading(stored: Path) -> None:
    with pytest.raises(MemoryError, match="memory_limit: 1 kB given"):
        fastaniso.measure(stored, memory_limit=1000)
    assert fastaniso.measure(stored, memory_limit="1 GB").description.n == 500


def test_progress_goes_to_the_end(stored: Path) -> None:
    told: list[Progress] = []
    fastaniso.measure(stored, block_rows=200, progress=told.append)
    assert [p.done for p in told] == [200, 400, 500]
    assert told[-1].share == 1.0


def test_a_result_saves_and_prints(stored: Path, tmp_path: Path) -> None:
    result = fastaniso.measure(stored)
    written = result.save(tmp_path / "out")
    assert {path.name for path in written} == {"measure.json", "vectors.safetensors", "vectors.png"}
    content = json.loads((tmp_path / "out" / "measure.json").read_text())
    assert content["mean_cosine"] == result.description.mean_cosine
    assert content["kind"] == "measure"
    assert "mean cosine" in str(result)
    assert isinstance(fastaniso.load_state(tmp_path / "out" / "states" / "vectors.safetensors"), fastaniso.Gram)


def test_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one file or folder"):
        fastaniso.measure([])
    with pytest.raises(ValueError, match="block_rows: expected a positive int"):
        fastaniso.measure(tmp_path / "x.npy", block_rows=0)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        fastaniso.measure(tmp_path / "x.npy")


@pytest.mark.parametrize("block_rows", [None, 77])
def test_metrics_of_stored_rows_are_those_of_rows_in_memory(stored: Path, block_rows: int | None) -> None:
    names = ["mean_cosine", "rankme", ("mev", {"legacy": "centered"}), "centered_mean_cosine", "cosine_to_mean"]
    names += ["partition_isotropy", ("partition_isotropy", {"unit": True}), "self_clustering"]
    seen: list[Progress] = []
    found = fastaniso.measure(stored, metrics=names, block_rows=block_rows, progress=seen.append)
    expected = fastaniso.describe(ROWS, metrics=names).metrics
    assert found.description.metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert found.description.metrics[name] == pytest.approx(value, rel=1e-6), name
    # A second pass tells how far it is, too.
    assert {progress.stage for progress in seen} >= {"measuring", "centered_mean_cosine", "partition_isotropy"}
    everything = fastaniso.measure(stored, metrics="all", gram=False).description.metrics
    assert everything.keys() >= {"centered_mean_cosine", "isoscore", "norms"}
    assert everything["rankme"] == pytest.approx(expected["rankme"], rel=1e-6)


def test_metrics_hold_the_scatters_that_they_need(stored: Path) -> None:
    state = fastaniso.measure(stored, metrics=["rankme"], gram=False).state
    assert isinstance(state, fastaniso.Gram)
    assert (state.scatter is None, state.unit_scatter is None) == (False, True)
    with pytest.raises(ValueError, match="'two_nn' needs neighbors, which measure does not have; call fastaniso"):
        fastaniso.measure(stored, metrics=["two_nn"])
    with pytest.raises(ValueError, match="no metric 'rank_me'; did you mean rankme"):
        fastaniso.measure(stored, metrics=["rank_me"])


def test_rows_left_out_are_left_out_of_the_second_passes(tmp_path: Path) -> None:
    rows = ROWS.clone()
    rows[321], rows[5, 3] = 0, torch.nan
    np.save(tmp_path / "bad.npy", rows.numpy())
    found = fastaniso.measure(tmp_path / "bad.npy", metrics="all", invalid="omit").description
    kept = rows[rows.isfinite().all(1) & (rows != 0).any(1)]
    for name in ("centered_mean_cosine", "partition_isotropy"):
        assert found.metrics[name] == pytest.approx(getattr(fastaniso, name)(kept), rel=1e-6)
    assert (found.n, found.dropped.zero, found.dropped.nonfinite) == (498, 1, 1)
