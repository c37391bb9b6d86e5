"""Columns of vectors in Arrow and Parquet files and in Hugging Face data sets: read as they are, in any blocks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_sources_files import check_holds, damaged_copies
from torch import Tensor

from fastaniso.sources import CorruptFileError, open_source, parquet_files

pa = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS = torch.randn(100, 16, generator=torch.Generator().manual_seed(0))


def fixed(rows: Tensor) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.numpy().reshape(-1)), rows.shape[1])


def variable(rows: Tensor) -> Any:
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.numpy().reshape(-1)))


def large(rows: Tensor) -> Any:
    offsets = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(rows.numpy().reshape(-1)))


def table(vectors: Any) -> Any:
    """Vectors between columns of other kinds, a dictionary-encoded one before them."""
    count = len(vectors)
    labels = pa.array([f"label {i % 3}" for i in range(count)]).dictionary_encode()
    return pa.table({"label": labels, "v": vectors, "id": pa.array(range(count), pa.int64())})


def write_file(path: Path, content: Any) -> Path:
    with pa.OSFile(str(path.with_suffix(".arrow")), "wb") as sink, pa.ipc.new_file(sink, content.schema) as writer:
        writer.write_table(content, max_chunksize=30)
    return path.with_suffix(".arrow")


def write_stream(path: Path, content: Any) -> Path:
    with pa.OSFile(str(path.with_suffix(".arrow")), "wb") as sink, pa.ipc.new_stream(sink, content.schema) as writer:
        writer.write_table(content, max_chunksize=30)
    return path.with_suffix(".arrow")


def write_feather(path: Path, content: Any) -> Path:
    """Compressed, as feather is by default."""
    feather.write_feather(content, path.with_suffix(".feather"), compression="lz4", chunksize=30)
    return path.with_suffix(".feather")


def write_parquet(path: Path, content: Any) -> Path:
    parquet.write_table(content, path.with_suffix(".parquet"), row_group_size=30)
    return path.with_suffix(".parquet")


WRITERS = [write_file, write_stream, write_feather, write_parquet]
Writer = Callable[[Path, Any], Path]
each_writer = pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__.removeprefix("write_"))


@each_writer
@pytest.mark.parametrize("make", [fixed, variable, large], ids=lambda make: make.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
def test_a_column_is_read_as_it_is(tmp_path: Path, write: Writer, make: Any, dtype: torch.dtype) -> None:
    rows = ROWS.to(dtype)
    path = write(tmp_path / "rows", table(make(rows)))
    source = open_source(path)
    check_holds(source, rows)
    assert source.name == f"{path}:v"


@each_writer
def test_blocks_in_any_order(tmp_path: Path, write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tiles of pairs ask for them: forward, back to the row's block, and over the bounds of batches."""
    monkeypatch.setattr(parquet_files, "BATCH_BYTES", 7 * 16 * 4)
    source = open_source(write(tmp_path / "rows", table(variable(ROWS))))
    starts = [0, 20, 40, 60, 80, 20, 40, 60, 80, 40, 99, 0, 61, 29, 30]
    for start in starts:
        assert torch.equal(source.rows(start, start + 20), ROWS[start : start + 20])


def test_a_parquet_file_read_forward_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "BATCH_BYTES", 10 * 16 * 4)
    source = open_source(write_parquet(tmp_path / "rows", table(fixed(ROWS))))
    opened = []
    open_file = type(source)._open  # type: ignore[attr-defined]
    monkeypatch.setattr(type(source), "_open", lambda self: opened.append(1) or open_file(self))
    for start in range(0, 100, 7):
        assert torch.equal(source.rows(start, start + 7), ROWS[start : start + 7])
    assert len(opened) == 1
    assert torch.equal(source.rows(0, 7), ROWS[:7])
    assert torch.equal(source.rows(92, 97), ROWS[92:97])
    assert len(opened) == 3, "a block in another row group begins there, and decodes nothing between"


@each_writer
def test_no_rows_and_one_row(tmp_path: Path, write: Writer) -> None:
    empty = open_source(write(tmp_path / "empty", table(fixed(ROWS[:0]))))
    assert (empty.count, empty.dim) == (0, 16)
    assert empty.rows(0, 10).shape == (0, 16)
    assert torch.equal(open_source(write(tmp_path / "one", table(variable(ROWS[:1])))).rows(0, 1), ROWS[:1])
    with pytest.raises(ValueError, match=r":v: a column of lists without a row does not tell the dimension"):
        open_source(write(tmp_path / "unknown", table(variable(ROWS[:0]))))


@each_writer
@pytest.mark.parametrize("make", [fixed, variable], ids=lambda make: make.__name__)
def test_nulls_are_refused_with_their_row(tmp_path: Path, write: Writer, make: Any) -> None:
    kind = make(ROWS).type
    values = ROWS.tolist()
    values[73] = None
    source = open_source(write(tmp_path / "null_row", table(pa.array(values, kind))))
    assert torch.equal(source.rows(0, 60), ROWS[:60])
    with pytest.raises(ValueError, match=r":v: row 73 is null; fill it, or leave such rows out"):
        source.rows(55, 90)
    values = ROWS.tolist()
    values[41][3] = None
    source = open_source(write(tmp_path / "null_number", table(pa.array(values, kind))))
    with pytest.raises(ValueError, match=r":v: row 41 holds a null"):
        source.rows(40, 50)
    values = [None, *ROWS.tolist()]
    with pytest.raises(ValueError, match=r":v: row 0 is null"):
        open_source(write(tmp_path / "null_first", table(pa.array(values[:3], kind)))).rows(0, 3)


@each_writer
def test_ragged_lists_are_refused_with_their_row(tmp_path: Path, write: Writer) -> None:
    values = ROWS.tolist()
    values[62] = values[62][:5]
    source = open_source(write(tmp_path / "ragged", table(pa.array(values, pa.list_(pa.float32())))))
    with pytest.raises(ValueError, match=r":v: row 62 holds 5 numbers and the rows before it 16; every row needs as"):
        source.rows(31, 95)


@each_writer
def test_columns_are_chosen_by_name(tmp_path: Path, write: Writer) -> None:
    two = table(fixed(ROWS)).append_column("w", variable(ROWS + 1)).append_column("n", pa.array([[1]] * 100))
    path = write(tmp_path / "two", two)
    check_holds(open_source(path, column="w"), ROWS + 1)
    with pytest.raises(ValueError, match=r"column: .* holds 2 columns of vectors; name one of v, w"):
        open_source(path)
    with pytest.raises(ValueError, match=r"column: .* holds no 'x'; it has v, w"):
        open_source(path, column="x")
    with pytest.raises(ValueError, match=r"column: 'n' of .* is list<.*int64>; expected a FixedSizeList or List"):
        open_source(path, column="n")
    with pytest.raises(ValueError, match=r"tensor: a .* file takes column= instead, got tensor='v'"):
        open_source(path, tensor="v")
    path = write(tmp_path / "none", two.select(["label", "id"]))
    with pytest.raises(ValueError, match=r"holds 0 columns of vectors; name one of none"):
        open_source(path)


@each_writer
@pytest.mark.parametrize("kept", [0, 5, 40, 1500])
def test_files_cut_short_are_refused(tmp_path: Path, write: Writer, kept: int) -> None:
    path = write(tmp_path / "cut", table(fixed(ROWS)))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptFileError, match=f"{path.name}: cannot be read as (Arrow|Parquet)"):
        open_source(path).rows(0, 100)


def test_damaged_pages_are_told_when_they_are_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "damaged", table(fixed(ROWS)))
    content = bytearray(path.read_bytes())
    content[200:4000] = bytes(3800)
    path.write_bytes(content)
    source = open_source(path)
    with pytest.raises(CorruptFileError, match=r"damaged.parquet: cannot be read as Parquet"):
        source.rows(0, 100)


@each_writer
def test_any_damage_is_told_in_words_or_harmless(tmp_path: Path, write: Writer) -> None:
    told: list[str] = []
    for path in damaged_copies(write(tmp_path / "rows", table(variable(ROWS))), 100):
        try:
            source = open_source(path)
            for start in range(0, min(source.count, 100), 30):
                source.rows(start, start + 30)
        except ValueError as error:
            told.append(str(error))
    assert len(told) > 10
    assert all(path.name in words for words in told)


@each_writer
def test_a_fingerprint_tells_when_a_file_changes(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "rows", table(fixed(ROWS)))
    before = open_source(path).fingerprint
    assert open_source(path).fingerprint == before == json.loads(json.dumps(before))
    write(tmp_path / "rows", table(fixed(ROWS[1:])))
    assert open_source(path).fingerprint != before


def test_a_large_row_group_is_never_whole_in_memory(tmp_path: Path) -> None:
    """One row group of 128 MB, of which a block of 2 MB is read at its end."""
    rows = torch.zeros(1 << 17, 256)
    path = tmp_path / "large.parquet"
    parquet.write_table(pa.table({"v": fixed(rows)}), path, row_group_size=len(rows), use_dictionary=False)
    source = open_source(path)
    before = pa.default_memory_pool().max_memory()
    block = source.rows(len(rows) - 2048, len(rows))
    assert torch.equal(block, rows[:2048])
    assert pa.default_memory_pool().max_memory() - before < 32 << 20


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "rows", table(fixed(ROWS)))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastaniso\[arrow\]'"):
        open_source(path)


@pytest.fixture(scope="module")
def dataset() -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "v": datasets.Sequence(datasets.Value("float32"), length=16)}
    )
    return datasets.Dataset.from_dict({"text": ["word"] * 100, "v": ROWS.tolist()}, features=features)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_data_set_on_disk(tmp_path: Path, dataset: Any, shards: int) -> None:
    dataset.save_to_disk(tmp_path / "saved", num_shards=shards)
    source = open_source(tmp_path / "saved")
    check_holds(source, ROWS)
    assert len(source.parts) == shards
    assert all(part.name.endswith(".arrow:v") for part in source.parts)
    with pytest.raises(ValueError, match="holds no 'w'"):
        open_source(tmp_path / "saved", column="w")


def test_a_data_set_of_splits_or_without_a_shard_is_refused(tmp_path: Path, dataset: Any) -> None:
    import datasets

    splits = datasets.DatasetDict({"train": dataset, "test": dataset.select(range(20))})
    splits.save_to_disk(tmp_path / "splits")
    with pytest.raises(ValueError, match="several splits; name one of them, DIR/SPLIT: train, test"):
        open_source(tmp_path / "splits")
    check_holds(open_source(tmp_path / "splits" / "test"), ROWS[:20])
    (tmp_path / "splits" / "train" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(CorruptFileError, match=r"lacks data-00000-of-00001.arrow, which its index names"):
        open_source(tmp_path / "splits" / "train")
    (tmp_path / "splits" / "test" / "state.json").write_text("{}")
    with pytest.raises(CorruptFileError, match=r"state.json: does not name the data set's files"):
        open_source(tmp_path / "splits" / "test")


def test_a_data_set_in_the_process_with_its_order(dataset: Any) -> None:
    source = open_source(dataset)
    check_holds(source, ROWS)
    assert source.fingerprint == open_source(dataset).fingerprint
    order = [*range(50, 100), 3, 1, 2]
    chosen = open_source(dataset.select(order), column="v")
    check_holds(chosen, ROWS[order])
    assert chosen.fingerprint != source.fingerprint
    datasets = pytest.importorskip("datasets")
    with pytest.raises(TypeError, match=r"expected a datasets.Dataset, .* got DatasetDict; take one split"):
        open_source(datasets.DatasetDict({"train": dataset}))
    with pytest.raises(ValueError, match="tensor: a data set takes column= instead"):
        open_source(dataset, tensor="v")
