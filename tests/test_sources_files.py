"""Arrays in files: mapped block by block as they are, without running code, and refused where they are damaged."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fastaniso.sources import CorruptFileError, Source, open_source

ROWS = torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
KINDS = ("npy", "safetensors", "pt", "pt_dict")


def store(path: Path, kind: str, rows: Tensor) -> Path:
    path = path.with_suffix(f".{kind.removesuffix('_dict')}")
    if kind == "npy":
        np.save(path, rows.numpy())
    elif kind == "safetensors":
        save_file({"hidden": rows}, path)
    else:
        torch.save({"hidden": rows, "step": 3, "shape": rows.shape} if kind == "pt_dict" else rows, path)
    return path


def check_holds(source: Source, rows: Tensor) -> None:
    """Every number of every block is as stored, whatever the block."""
    assert (source.count, source.dim, source.dtype) == (*rows.shape, rows.dtype)
    for start, stop in ((0, len(rows)), (0, 1), (7, 61), (len(rows) - 1, len(rows)), (5, 5), (3, len(rows) + 99)):
        block = source.rows(start, stop)
        assert torch.equal(block, rows[start:stop])
        assert block.stride(1) == 1 or block.shape[1] == 1


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (kind, dtype)
        for kind in KINDS
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64)
        if (kind, dtype) != ("npy", torch.bfloat16)  # NumPy has no bfloat16
    ],
)
def test_stored_rows_are_read_as_they_are(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    rows = ROWS.to(dtype)
    source = open_source(store(tmp_path / "rows", kind, rows))
    check_holds(source, rows)
    assert source.nbytes == rows.nbytes
    assert source.parts == (source,)


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_and_one_row(tmp_path: Path, kind: str) -> None:
    empty = open_source(store(tmp_path / "empty", kind, ROWS[:0]))
    assert (empty.count, empty.dim) == (0, 16)
    assert empty.rows(0, 10).shape == (0, 16)
    assert torch.equal(open_source(store(tmp_path / "one", kind, ROWS[:1].clone())).rows(0, 1), ROWS[:1])


def test_columns_side_by_side_are_turned_block_by_block(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.asfortranarray(ROWS.numpy()))
    check_holds(open_source(tmp_path / "f.npy"), ROWS)
    torch.save(ROWS.T.contiguous().T, tmp_path / "f.pt")
    check_holds(open_source(tmp_path / "f.pt"), ROWS)


def test_a_part_of_a_tensor_saved_with_its_whole_storage(tmp_path: Path) -> None:
    whole = torch.randn(50, 40)
    torch.save({"part": whole[3:, 5:21], "rest": whole}, tmp_path / "views.pt")
    check_holds(open_source(tmp_path / "views.pt", tensor="part"), whole[3:, 5:21])
    torch.save(torch.nn.Parameter(whole), tmp_path / "parameter.pt")
    check_holds(open_source(tmp_path / "parameter.pt"), whole)


def test_leading_axes_are_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS.view(5, 20, 16).numpy())
    check_holds(open_source(tmp_path / "x.npy"), ROWS)
    save_file({"x": ROWS.view(5, 1, 20, 16)}, tmp_path / "x.safetensors")
    check_holds(open_source(tmp_path / "x.safetensors"), ROWS)
    np.save(tmp_path / "f.npy", np.asfortranarray(ROWS.view(5, 20, 16).numpy()))
    with pytest.raises(ValueError, match=r"f.npy: its leading axes .* save it contiguous"):
        open_source(tmp_path / "f.npy")


def test_numbers_that_are_not_aligned(tmp_path: Path) -> None:
    """Older writers of safetensors did not pad the header."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [100, 16], "data_offsets": [0, 6400]}}).encode()
    header += b" " * ((3 - len(header)) % 8)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + ROWS.numpy().tobytes())
    check_holds(open_source(path), ROWS)


class Evil:
    """Writes a file when something unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("suffix", ["npy", "pt", "safetensors"])
@pytest.mark.parametrize("maker", ["its_own_format", "plain_pickle"])
def test_no_code_runs_from_a_file(tmp_path: Path, suffix: str, maker: str) -> None:
    path, proof = tmp_path / f"evil.{suffix}", tmp_path / "ran"
    evil = Evil(proof)
    if maker == "its_own_format" and suffix == "npy":
        np.save(path, np.array([evil], dtype=object), allow_pickle=True)
    elif maker == "its_own_format" and suffix == "pt":
        torch.save({"hidden": ROWS, "evil": evil}, path)
    else:
        path.write_bytes(pickle.dumps(evil))
    with pytest.raises(CorruptFileError, match=f"evil.{suffix}"):
        open_source(path)
    assert not proof.exists()


@pytest.mark.parametrize("name", ["os.system", "torch.load", "torch.hub.load", "builtins.eval", "collections.Counter"])
def test_no_other_name_is_looked_up(tmp_path: Path, name: str) -> None:
    module, _, function = name.rpartition(".")
    with zipfile.ZipFile(tmp_path / "call.pt", "w") as archive:
        archive.writestr("call/data.pkl", f"c{module}\n{function}\n(S'true'\ntR.".encode())
    with pytest.raises(CorruptFileError, match=rf"Python objects besides tensors \({name}\)"):
        open_source(tmp_path / "call.pt")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0, 7, 10, 300, 6000])
def test_files_cut_short_are_refused(tmp_path: Path, kind: str, kept: int) -> None:
    path = store(tmp_path / "cut", kind, ROWS)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptFileError, match=path.name):
        open_source(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_while_it_is_read_is_told(tmp_path: Path, kind: str) -> None:
    path = store(tmp_path / "cut", kind, ROWS)
    source = open_source(path)
    with path.open("rb+") as file:
        file.truncate(4000)
    with pytest.raises(CorruptFileError, match="cut short: 4000 bytes"):
        source.rows(0, 10)


def _header(entry: Any) -> bytes:
    content = json.dumps({"x": entry}).encode()
    return struct.pack("<Q", len(content)) + content + bytes(64)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 100,
        struct.pack("<Q", 5) + b"{,,,}" + bytes(9),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b'"\xff"}',
        _header(3),
        _header({"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 33]}),
        _header({"dtype": "F32", "shape": [2, 4], "data_offsets": [40, 72]}),
        _header({"dtype": "F32", "shape": [2, -4], "data_offsets": [0, 32]}),
        _header({"dtype": "F32", "shape": [2, 4], "data_offsets": [32, 0]}),
        _header({"dtype": "F32", "shape": [2, 4.0], "data_offsets": [0, 32]}),
        _header({"dtype": "F32", "shape": [2, 4]}),
        _header({"dtype": ["F32"], "shape": [2, 4], "data_offsets": [0, 32]}),
    ],
)
def test_damaged_headers_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"damaged.safetensors: cannot be read as safetensors"):
        open_source(path)


def test_a_damaged_pickle_or_a_lost_record_is_refused(tmp_path: Path) -> None:
    torch.save({"hidden": ROWS}, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as archive:
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    pickled, record = "whole/data.pkl", "whole/data/0"
    damages = {
        "short_pickle": {**content, pickled: content[pickled][:40]},
        "no_pickle": {name: value for name, value in content.items() if name != pickled},
        "wrong_opcode": {**content, pickled: content[pickled].replace(b"q", b"\xff")},
        "no_record": {name: value for name, value in content.items() if name != record},
        "short_record": {**content, record: content[record][:-1]},
    }
    for name, records in damages.items():
        path = tmp_path / f"{name}.pt"
        with zipfile.ZipFile(path, "w") as archive:
            for key, value in records.items():
                archive.writestr(key, value)
        with pytest.raises(CorruptFileError, match=f"{name}.pt"):
            open_source(path)
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for key, value in content.items():
            archive.writestr(key, value)
    with pytest.raises(ValueError, match="a compressed archive cannot be read in place"):
        open_source(tmp_path / "packed.pt")


def damaged_copies(path: Path, count: int) -> Iterator[Path]:
    """Copies with some bytes changed, most of them near the ends, where headers and footers are."""
    content = path.read_bytes()
    random = np.random.default_rng(0)
    copy = path.with_name(f"copy-{path.name}")
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(random.integers(1, 4)):
            at = int(random.integers(min(len(content), 500)))
            damaged[at if random.integers(2) else -1 - at] = random.integers(256)
        copy.write_bytes(damaged)
        yield copy


@pytest.mark.parametrize("kind", KINDS)
def test_any_damage_is_told_in_words_or_harmless(tmp_path: Path, kind: str) -> None:
    told: list[str] = []
    for path in damaged_copies(store(tmp_path / "rows", kind, ROWS), 100):
        try:
            source = open_source(path)
            for start in range(0, min(source.count, 100), 30):
                source.rows(start, start + 30)
        except ValueError as error:
            told.append(str(error))
    assert len(told) > 10
    assert all(path.name in words for words in told)


def test_names_shapes_and_dtypes_are_checked(tmp_path: Path) -> None:
    save_file({"a": ROWS, "b": ROWS[:2].clone()}, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match=r"tensor: .* holds 2 tensors; name one of a, b"):
        open_source(tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="holds no 'c'; it has a, b"):
        open_source(tmp_path / "two.safetensors", tensor="c")
    assert open_source(tmp_path / "two.safetensors", tensor="b").count == 2
    assert open_source(tmp_path / "two.safetensors", tensor="b").name.endswith("two.safetensors:b")
    np.save(tmp_path / "flat.npy", ROWS[0].numpy())
    with pytest.raises(ValueError, match=r"at least two axes and d > 0, got shape \(16,\)"):
        open_source(tmp_path / "flat.npy")
    np.save(tmp_path / "thin.npy", ROWS[:, :0].numpy())
    with pytest.raises(ValueError, match=r"d > 0, got shape \(100, 0\)"):
        open_source(tmp_path / "thin.npy")
    np.save(tmp_path / "big.npy", ROWS.numpy().astype(">f4"))
    with pytest.raises(ValueError, match="other byte order"):
        open_source(tmp_path / "big.npy")
    (tmp_path / "rows.csv").touch()
    with pytest.raises(ValueError, match=r"path: expected .npy, .* got 'rows.csv'"):
        open_source(tmp_path / "rows.csv")
    with pytest.raises(ValueError, match="holds one array without a name"):
        open_source(tmp_path / "flat.npy", tensor="a")
    with pytest.raises(ValueError, match=r"column: a .safetensors file takes tensor= instead, got column='a'"):
        open_source(tmp_path / "two.safetensors", column="a")
    torch.save([ROWS], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="expected a tensor or a dict of tensors, got list"):
        open_source(tmp_path / "list.pt")
    with pytest.raises(FileNotFoundError, match=r"there is no file '.*none.npy'"):
        open_source(tmp_path / "none.npy")


@pytest.mark.parametrize("kind", KINDS)
def test_other_dtypes_are_refused(tmp_path: Path, kind: str) -> None:
    path = store(tmp_path / "ints", kind, torch.ones(3, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"ints.* expected float32, .* got (int64|I64|LongStorage)"):
        open_source(path)
    if kind != "npy":
        path = store(tmp_path / "small", kind, ROWS.to(torch.float8_e4m3fn))
        with pytest.raises(ValueError, match=r"expected float32, .* got (F8_E4M3|float8_e4m3fn)"):
            open_source(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fingerprint_tells_when_a_file_changes(tmp_path: Path, kind: str) -> None:
    path = store(tmp_path / "rows", kind, ROWS)
    before = open_source(path).fingerprint
    assert open_source(path).fingerprint == before == json.loads(json.dumps(before))
    store(tmp_path / "rows", kind, ROWS[1:].clone())
    assert open_source(path).fingerprint != before


def _resident() -> int:
    """Bytes of memory that are this process's, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("kind", ["npy", "safetensors", "pt"])
def test_a_file_larger_than_memory(tmp_path: Path, kind: str) -> None:
    """Sparse, so it takes no space; blocks here and there are read, and only one of them is ever held."""
    rows, dim = 1 << 27, 512  # 256 GiB
    path = _sparse(tmp_path / "large", kind, rows, dim)
    source = open_source(path)
    assert (source.count, source.dim, source.nbytes) == (rows, dim, 1 << 38)
    before = _resident()
    block_rows = 1 << 14  # 32 MiB
    for start in (*range(0, 8 * block_rows, block_rows), rows // 2, rows - block_rows):
        block = source.rows(start, start + block_rows)
        assert block.shape == (block_rows, dim)
        assert int(torch.count_nonzero(block)) == 0
        assert _resident() - before < 3 * block.nbytes


def _sparse(path: Path, kind: str, rows: int, dim: int) -> Path:
    """A file of ``kind`` that holds rows × dim float32 zeros, most of it never written."""
    path = path.with_suffix(f".{kind}")
    size = rows * dim * 4
    if kind == "npy":
        np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
    elif kind == "safetensors":
        header = json.dumps({"x": {"dtype": "F32", "shape": [rows, dim], "data_offsets": [0, size]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        with path.open("rb+") as file:
            file.truncate(8 + len(header) + size)
    else:
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
            torch.save(torch.empty(rows, dim), path)
    return path
