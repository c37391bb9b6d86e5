"""Folders and lists of files as one source: in order, of one form, every row once."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_sources_files import KINDS, check_holds, store

from fastaniso.sources import CorruptFileError, Shards, open_source

ROWS = torch.randn(110, 16, generator=torch.Generator().manual_seed(0))
CUTS = [0, 10, 10, 37, 38, 110]  # an empty shard and one of a single row among them


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_shards_in_natural_order(tmp_path: Path, kind: str) -> None:
    for number, (start, stop) in enumerate(pairwise(CUTS)):
        store(tmp_path / f"part-{number + 8}", kind, ROWS[start:stop].clone())
    (tmp_path / "README.md").write_text("not vectors")
    store(tmp_path / ".hidden", kind, ROWS)
    source = open_source(tmp_path)
    assert isinstance(source, Shards)
    check_holds(source, ROWS)
    assert [Path(part.name.partition(":")[0]).stem for part in source.parts] == [f"part-{n}" for n in range(8, 13)]
    assert source.name == str(tmp_path)
    for start in range(0, 110, 9):
        assert torch.equal(source.rows(start, start + 9), ROWS[start : start + 9])


def test_a_folder_with_one_file_is_that_file(tmp_path: Path) -> None:
    store(tmp_path / "only", "npy", ROWS)
    assert open_source(tmp_path).name == open_source(tmp_path / "only.npy").name


def test_an_index_tells_which_files_belong(tmp_path: Path) -> None:
    index = {}
    for number, part in enumerate(ROWS.split(40)):
        name = f"vectors-{number + 1:05}-of-00003.safetensors"
        save_file({f"rows.{number}": part.clone()}, tmp_path / name)
        index[f"rows.{number}"] = name
    save_file({"other": ROWS.clone()}, tmp_path / "another.safetensors")
    (tmp_path / "vectors.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    check_holds(open_source(tmp_path), ROWS)
    check_holds(open_source(tmp_path, tensor="rows.1"), ROWS[40:80])
    (tmp_path / index["rows.2"]).unlink()
    with pytest.raises(CorruptFileError, match=r"lacks vectors-00003-of-00003.safetensors, which its index names"):
        open_source(tmp_path)
    (tmp_path / "vectors.safetensors.index.json").write_text('{"weight_map": [1]}')
    with pytest.raises(CorruptFileError, match="not an index of safetensors shards"):
        open_source(tmp_path)


def test_shards_of_another_form_are_named(tmp_path: Path) -> None:
    store(tmp_path / "a", "npy", ROWS)
    store(tmp_path / "b", "npy", ROWS[:, :5].clone())
    with pytest.raises(ValueError, match=r"path: .*b.npy holds vectors of 5 numbers and .*a.npy of 16"):
        open_source(tmp_path)
    store(tmp_path / "b", "npy", ROWS.half())
    with pytest.raises(ValueError, match=r"path: .*b.npy holds float16 and .*a.npy float32"):
        open_source(tmp_path)
    store(tmp_path / "b", "safetensors", ROWS)
    with pytest.raises(ValueError, match=r"files of several kinds \(.npy, .safetensors\); name the files themselves"):
        open_source(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="holds no file of vectors"):
        open_source(tmp_path / "none")


def test_several_paths_are_one_source_and_none_counts_twice(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS[:30].numpy())
    torch.save(ROWS[30:70].clone(), tmp_path / "b.pt")
    (tmp_path / "c").mkdir()
    for name, rows in (("1", ROWS[70:90]), ("2", ROWS[90:])):
        store(tmp_path / "c" / name, "safetensors", rows.clone())
    paths = [tmp_path / "a.npy", tmp_path / "b.pt", tmp_path / "c"]
    source = open_source(paths)
    check_holds(source, ROWS)
    assert len(source.parts) == 4
    assert len(source.fingerprint) == 4
    with pytest.raises(ValueError, match=r"a.npy is there twice: its rows would count twice"):
        open_source([*paths, tmp_path / "c" / ".." / "a.npy"])
    with pytest.raises(ValueError, match="expected at least one file or folder"):
        open_source([])
