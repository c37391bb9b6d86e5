"""Stored vectors elsewhere: read by ranges of bytes from any file system, checked before they are believed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor
from typer.testing import CliRunner

import fastaniso
from fastaniso.cli import app
from fastaniso.scanning.feed import Waiting, files_on
from fastaniso.sources import CorruptFileError, RemotePath, Shards, Source, as_location, open_source
from fastaniso.tasks import ManifestError, fold, plan_tasks, run_task

fsspec = pytest.importorskip("fsspec")

ROWS = torch.randn(110, 16, generator=torch.Generator().manual_seed(0)) + 0.3


class Place(NamedTuple):
    """A folder of a file system: its URL, and how a file gets there and away."""

    url: str
    put: Callable[[str, bytes], Any]
    remove: Callable[[str], Any]


def npy(rows: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows.numpy())
    return buffer.getvalue()


def parquet(rows: Tensor, group: int = 30) -> bytes:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    buffer = io.BytesIO()
    vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.flatten().numpy()), rows.shape[1])
    write_table(arrow.table({"v": vectors}), buffer, row_group_size=group)
    return buffer.getvalue()


def safetensors(rows: Tensor) -> bytes:
    return save({"rows": rows.contiguous()})


KINDS = {"npy": npy, "safetensors": safetensors, "parquet": parquet}


class Ranges(SimpleHTTPRequestHandler):
    """Serves a folder, and ranges of its files; without them where the path says so."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if not wanted or path.is_dir() or not path.is_file() or "whole" in self.path:
            super().do_GET()
            return
        start, stop = (int(n) for n in wanted.removeprefix("bytes=").split("-"))
        content = path.read_bytes()
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{min(stop, len(content) - 1)}/{len(content)}")
        self.send_header("Content-Length", str(len(content[start : stop + 1])))
        self.end_headers()
        self.wfile.write(content[start : stop + 1])

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        path = Path(self.translate_path(self.path))
        if path.is_file():
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    pytest.importorskip("s3fs", reason="s3:// needs s3fs")
    server = pytest.importorskip("moto.server", reason="the S3 server of this machine is moto's")
    threaded = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    threaded.start()
    host, port = threaded.get_host_and_port()
    yield {"endpoint_url": f"http://{host}:{port}", "key": "test", "secret": "test"}
    threaded.stop()


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    pytest.importorskip("aiohttp", reason="http:// needs aiohttp")
    folder = tmp_path_factory.mktemp("http")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def memory() -> Iterator[Place]:
    system = fsspec.filesystem("memory")
    yield Place("memory://vectors", lambda name, data: system.pipe(f"/vectors/{name}", data), _remover(system, ""))
    system.store.clear()


def _remover(system: Any, bucket: str) -> Callable[[str], Any]:
    return lambda name: system.rm(f"{bucket}/vectors/{name}")


@pytest.fixture(params=["file", "local", "memory", "s3", "http"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """``file://`` are paths of this machine; ``local://`` is the same folder through fsspec."""
    kind = request.param
    if kind == "memory":
        yield request.getfixturevalue("memory")
    elif kind == "s3":
        options = request.getfixturevalue("s3")
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        # The writer's own instance: the reader has to find out by itself what has changed.
        system = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
        bucket = f"bucket-{tmp_path.name.replace('_', '-').lower()[:40]}"
        system.mkdir(f"/{bucket}")
        put = lambda name, data: system.pipe(f"{bucket}/vectors/{name}", data)  # noqa: E731
        yield Place(f"s3://{bucket}/vectors/", put, _remover(system, bucket))
    else:
        root, url = request.getfixturevalue("http") if kind == "http" else (tmp_path, f"{kind}://{tmp_path}")
        folder = root / tmp_path.name / "vectors" if kind == "http" else root / "vectors"
        folder.mkdir(parents=True)
        remote = f"{url}/{tmp_path.name}/vectors/" if kind == "http" else f"{url}/vectors"
        yield Place(remote, lambda name, data: (folder / name).write_bytes(data), lambda name: (folder / name).unlink())


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_shards_anywhere(place: Place, kind: str) -> None:
    cuts = [0, 10, 10, 37, 110]
    for number, (start, stop) in enumerate(pairwise(cuts)):
        place.put(f"part-{number + 8}.{kind}", KINDS[kind](ROWS[start:stop]))
    place.put("README.md", b"not vectors")
    source = open_source(place.url)
    assert isinstance(source, Shards)
    assert source.is_remote == (not place.url.startswith("file"))
    assert (source.count, source.dim, source.dtype) == (110, 16, torch.float32)
    assert torch.equal(source.rows(0, 110), ROWS)
    for start in (0, 9, 25, 36, 100):
        assert torch.equal(source.rows(start, start + 20), ROWS[start : start + 20])
    assert [part.name.rpartition("/")[2].partition(".")[0] for part in source.parts] == [
        f"part-{number}" for number in range(8, 12)
    ]
    assert source.fingerprint == open_source(place.url).fingerprint
    one = open_source(f"{place.url.rstrip('/')}/part-11.{kind}")
    assert torch.equal(one.rows(0, 73), ROWS[37:])
    assert one.fingerprint[:2] == [f"part-11.{kind}", len(KINDS[kind](ROWS[37:]))]
    with pytest.raises(ValueError, match=r"part-11.* is there twice"):
        open_source([place.url, f"{place.url.rstrip('/')}/part-11.{kind}"])


def test_measured_as_if_it_were_here(place: Place, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    for number, part in enumerate(ROWS.split(40)):
        place.put(f"{number}.npy", npy(part))
        (tmp_path / "here" / f"{number}.npy").write_bytes(npy(part))
    options: dict[str, Any] = {"pairs": True, "neighbors": 3, "block_rows": 16, "metrics": "all"}
    ours = fastaniso.measure(place.url, **options)
    theirs = fastaniso.measure(tmp_path / "here", **options)
    assert ours.description.to_dict() == theirs.description.to_dict()
    assert ours.pairs is not None
    assert theirs.pairs is not None
    assert ours.pairs.to_dict() == theirs.pairs.to_dict()
    assert ours.neighbors is not None
    assert theirs.neighbors is not None
    assert torch.equal(ours.neighbors.indices, theirs.neighbors.indices)
    waiting = ours.to_dict()["made_from"]["waiting"]
    assert 0 < waiting["seconds"] < ours.seconds
    assert waiting["share"] == waiting["seconds"] / ours.seconds


def test_planned_run_and_folded_by_ranges(place: Place, tmp_path: Path) -> None:
    for number, part in enumerate(ROWS.split(40)):
        place.put(f"{number}.npy", npy(part))
    folder = tmp_path / "run"
    manifest = plan_tasks(place.url, folder, pairs=True, bins=64, neighbors=3, tiles=6)
    assert manifest.files == ("0.npy", "1.npy", "2.npy")
    assert run_task(folder, place.url, task=(0, 2)) == 7
    place.put("1.npy", npy(ROWS[:40]))
    with pytest.raises(ManifestError, match="changed since the work was planned"):
        run_task(folder, place.url, task=(1, 2))
    place.remove("1.npy")
    with pytest.raises(ManifestError, match=r"lacks .*1\.npy"):
        run_task(folder, place.url, task=(1, 2))
    place.put("1.npy", npy(ROWS[40:80]))
    again = tmp_path / "again"
    plan_tasks(place.url, again, pairs=True, bins=64, neighbors=3, tiles=6)
    assert run_task(again, place.url) == 15
    found = fold(again).result
    assert found.description.mean_cosine == pytest.approx(fastaniso.mean_cosine(ROWS), rel=1e-6)
    assert found.pairs is not None
    assert found.pairs.n == 110


def test_resume_refuses_a_shard_that_changed(place: Place, tmp_path: Path) -> None:
    place.put("a.npy", npy(ROWS))
    fastaniso.measure(place.url, resume=tmp_path / "kept")
    again = fastaniso.measure(place.url, resume=tmp_path / "kept")
    assert again.description.n == 110
    place.put("a.npy", npy(ROWS + 1))
    with pytest.raises(ValueError, match="other rows, or files that were changed since"):
        fastaniso.measure(place.url, resume=tmp_path / "kept")


def _claims(rows: int) -> bytes:
    """An .npy file whose header claims so many rows, of which one is there."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (rows, 16)})
    return buffer.getvalue() + bytes(64)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("claims.npy", _claims(10**15), r"cut short: \d+ bytes, and its rows go to byte 64000000000000"),
        ("cut.npy", npy(ROWS)[:-1], "cut short"),
        ("empty.npy", b"", "empty"),
        ("other.npy", b"PK\3\4" + bytes(200), "does not begin as one"),
        ("header.npy", npy(ROWS)[:40], "header is cut short"),
        ("long.npy", b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(200), "header is cut short, or none"),
        ("code.npy", npy(ROWS).replace(b"{'descr'", b"exit(9)#"), "its header says"),
        ("negative.npy", npy(ROWS).replace(b"(110, 16)", b"(-10, 16)"), "its header says"),
        ("cut.safetensors", safetensors(ROWS)[:-1], "does not fit the file"),
        ("long.safetensors", (2**60).to_bytes(8, "little") + bytes(100), "header is cut short or none"),
        ("none.safetensors", b"abc", "header is cut short or none"),
        ("cut.parquet", b"PAR1" + bytes(100), "cannot be read as Parquet"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and " " not in value else "",
)
def test_damaged_files_are_refused_before_memory_is_taken(
    memory: Place, name: str, content: bytes, message: str
) -> None:
    memory.put(name, content)
    with pytest.raises(CorruptFileError, match=message):
        open_source(f"{memory.url}/{name}")


def test_files_that_cannot_be_read_by_ranges(memory: Place) -> None:
    objects = io.BytesIO()
    np.save(objects, np.array([{1: 2}], dtype=object))
    memory.put("objects.npy", objects.getvalue())
    with pytest.raises(CorruptFileError, match=r"holds Python objects, .* refused"):
        open_source(f"{memory.url}/objects.npy")
    for name, array, message in (
        ("turned.npy", np.asfortranarray(ROWS.numpy()), r"columns lie side by side \(Fortran order\)"),
        ("swapped.npy", ROWS.numpy().astype(">f4"), "other byte order"),
        ("whole.npy", np.ones((3, 4), np.int64), "expected float32, float64, float16 or bfloat16, got <i8"),
    ):
        content = io.BytesIO()
        np.save(content, array)
        memory.put(name, content.getvalue())
        with pytest.raises(ValueError, match=message):
            open_source(f"{memory.url}/{name}")
    memory.put("rows.pt", b"")
    with pytest.raises(
        ValueError, match=r"of .pt files no ranges are read; save .npy, .safetensors, .parquet, or copy"
    ):
        open_source(f"{memory.url}/rows.pt")
    with pytest.raises(FileNotFoundError, match=r"there is no file 'memory:///vectors/none.npy'"):
        open_source(f"{memory.url}/none.npy")
    with pytest.raises(ValueError, match=r"path: nowhere://x: Protocol not known"):
        open_source("nowhere://x")


def test_a_file_that_shrinks_while_it_is_read(memory: Place) -> None:
    memory.put("a.npy", npy(ROWS))
    source = open_source(f"{memory.url}/a.npy")
    memory.put("a.npy", npy(ROWS[:50]))
    assert torch.equal(source.rows(0, 20), ROWS[:20])
    with pytest.raises(CorruptFileError, match=r"gave 0 bytes where 640 were asked for: it was cut short since"):
        source.rows(100, 110)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_vanishes_is_not_called_damaged(memory: Place, kind: str) -> None:
    memory.put(f"a.{kind}", KINDS[kind](ROWS))
    source = open_source(f"{memory.url}/a.{kind}")
    memory.remove(f"a.{kind}")
    with pytest.raises(FileNotFoundError):
        source.rows(0, 10)


def test_a_server_without_ranges_is_told(http: tuple[Path, str]) -> None:
    folder, url = http
    (folder / "whole.npy").write_bytes(npy(ROWS))
    source = open_source(f"{url}/whole.npy")
    with pytest.raises(CorruptFileError, match="its server does not serve ranges of bytes"):
        source.rows(10, 20)


def test_neither_passwords_nor_signatures_are_written_into_results(http: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = http
    (folder / "a.npy").write_bytes(npy(ROWS))
    source = open_source(f"{url}/a.npy?signature=secret")
    assert source.name == f"{url}/a.npy"
    assert source.fingerprint[0] == "a.npy"
    with pytest.raises(FileNotFoundError) as error:
        open_source(f"{url}/none.npy?signature=secret")
    assert "secret" not in str(error.value)
    # Neither into a manifest, where they would be part of the name of the file.
    with pytest.raises(ValueError, match="is no plain name of a file in"):
        plan_tasks(f"{url}/a.npy?signature=secret", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_manifest_reaches_nothing_outside_its_folder(memory: Place, http: tuple[Path, str]) -> None:
    root = as_location(memory.url)
    assert isinstance(root, RemotePath)
    # No part of a name is a URL, or a chain of them.
    for name in ("memory://other/a.npy", "a::file:///etc/hosts", "s3://bucket/a.npy"):
        assert not (root / name).is_file()
        assert str(root / name) == f"memory:///vectors/{name}"
    for folder, name in ((root, "../a.npy"), (root, "b/../../a.npy"), (as_location(f"{http[1]}/a"), "%2e%2e/b.npy")):
        with pytest.raises(ValueError, match="is no plain name of a file in"):
            _ = folder / name


def test_parquet_fetches_one_row_group_at_a_time(memory: Place) -> None:
    arrow = pytest.importorskip("pyarrow")
    rows = torch.randn(60_000, 64)
    memory.put("rows.parquet", parquet(rows, group=4000))
    one = rows[:4000].nbytes
    source = open_source(f"{memory.url}/rows.parquet")
    read = held = 0
    for start, block in source.blocks(4000):
        assert torch.equal(block.values[0], rows[start : start + 4000])
        read += block.count
        held = max(held, arrow.total_allocated_bytes())
    assert read == 60_000
    # As it is stored and a batch decoded, with what the allocator rounds up.
    assert one < held < 5 * one < rows.nbytes / 2


class Endless(Source):
    """Rows that are made when they are asked for: a corpus that no disk holds."""

    name = "endless"
    dtype = torch.float32

    def __init__(self, count: int, dim: int, *, remote: bool = True, seconds: float = 0.0) -> None:
        self.count, self.dim, self.is_remote = count, dim, remote
        self._seconds = seconds
        self.asked: list[tuple[int, int]] = []
        self.most = 0
        self.slept = 0.0

    @property
    def fingerprint(self) -> list[Any]:
        return [self.count, self.dim]

    def rows(self, start: int, stop: int) -> Tensor:
        began = time.perf_counter()
        time.sleep(self._seconds)
        self.slept += time.perf_counter() - began
        self.asked.append((start, stop))
        block = torch.full((stop - start, self.dim), 0.5)
        block[:, 0] = -1.0
        if Path("/proc/self/statm").exists():
            self.most = max(self.most, int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
        return block


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_hundred_million_rows_need_memory_for_a_block() -> None:
    fastaniso.measure(Endless(10**6, 4), gram=False)
    source = Endless(10**8, 4)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    found = fastaniso.measure(source, gram=False)
    assert found.description.n == 10**8
    assert found.description.mean_cosine == pytest.approx(1.0)
    # A block is of 64 MiB: the one that is measured, the one that is read, and one to spare.
    assert (1 << 22) * 16 < source.most - before < 3 * (1 << 22) * 16 < source.nbytes / 7
    assert source.asked[:2] == [(0, 1 << 22), (1 << 22, 2 << 22)]


def test_reading_overlaps_measuring() -> None:
    """Each block takes as long to read as it takes to measure: all but the first are there when they are wanted."""

    def busy(_: Any) -> None:
        time.sleep(0.04)

    shares = {}
    for remote in (True, False):
        source = Endless(12, 4, remote=remote, seconds=0.02)
        found = fastaniso.measure(source, gram=False, block_rows=1, progress=busy)
        shares[remote] = found.provenance["waiting"]["seconds"] / source.slept
    assert shares[True] < 0.5
    assert shares[False] > 0.9


def test_a_limit_of_memory_counts_the_block_that_is_read_meanwhile() -> None:
    rows = 10**6  # a block of 16 MB
    options: dict[str, Any] = {"gram": False, "block_rows": rows, "memory_limit": "30 MB"}
    assert fastaniso.measure(Endless(rows, 4, remote=False), **options).description.n == rows
    with pytest.raises(MemoryError, match="MB"):
        fastaniso.measure(Endless(rows, 4), **options)


def test_the_next_file_is_read_while_the_last_block_of_one_is_measured() -> None:
    parts = [Endless(3, 4), Endless(0, 4), Endless(4, 4)]
    for number, part in enumerate(parts):
        part.name = f"part {number}"
    with files_on(torch.device("cpu"), Shards("all", parts), 2, waiting=Waiting()) as files:
        blocks = [list(some) for some in files]
        assert [[(block.start, block.stop) for block in some] for some in blocks] == [
            [(0, 2), (2, 3)],
            [],
            [(0, 2), (2, 4)],
        ]
        for block in blocks[0]:
            block.load()
        for _ in range(200):
            if parts[2].asked:
                break
            time.sleep(0.01)
        assert parts[2].asked == [(0, 2)]


@pytest.fixture
def stream() -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"v": datasets.Sequence(datasets.Value("float32"), length=16)})
    return datasets.Dataset.from_dict({"v": ROWS.tolist()}, features=features).to_iterable_dataset()


def test_a_streamed_data_set_is_measured_in_one_pass(stream: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS.numpy())
    ours = fastaniso.measure(stream, block_rows=25)
    theirs = fastaniso.measure(tmp_path / "rows.npy", block_rows=25)
    assert ours.description.to_dict() == theirs.description.to_dict()
    # Columns that the data set does not tell are those of its first row.
    unknown = stream.map(lambda row: {"v": row["v"]}, remove_columns=["v"])
    assert unknown.features is None
    found = fastaniso.measure(unknown, column="v", block_rows=25)
    assert found.description.mean_cosine == pytest.approx(theirs.description.mean_cosine, rel=1e-6)


def test_what_a_stream_cannot_give_is_refused_with_the_remedy(stream: Any, tmp_path: Path) -> None:
    refused: list[dict[str, Any]] = [
        {"pairs": True},
        {"neighbors": 3},
        {"metrics": "all"},
        {"resume": tmp_path / "kept"},
    ]
    for options in refused:
        with pytest.raises(ValueError, match=rf"{next(iter(options))}: .* is a stream, .* save it first"):
            fastaniso.measure(stream, **options)
    source = open_source(stream)
    for ask in (lambda: source.rows(0, 3), lambda: source.fingerprint):
        with pytest.raises(ValueError, match="comes as a stream, once and in order"):
            ask()
    with pytest.raises(ValueError, match="measure it alone"):
        open_source([stream, stream])
    with pytest.raises(ValueError, match="is no set of files"):
        plan_tasks(stream, tmp_path / "run")  # type: ignore[arg-type]


def test_a_source_of_ones_own() -> None:
    source = Endless(10, 4)
    assert open_source(source) is source
    with pytest.raises(ValueError, match="column: endless is opened already"):
        open_source(source, column="v")


def test_nothing_of_it_is_imported_until_it_is_needed() -> None:
    code = (
        "import sys, fastaniso; fastaniso.open_source; import fastaniso.tasks;"
        "assert not {'fsspec', 's3fs', 'aiohttp', 'pyarrow', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs fsspec: pip install 'fastaniso\[remote\]'"):
        open_source("s3://bucket/a.npy")


def test_the_command_line_takes_urls(memory: Place, tmp_path: Path) -> None:
    def command(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    memory.put("a.npy", npy(ROWS))
    measured = command("measure", f"{memory.url}/", "--json", "-q")
    assert measured.exit_code == 0, measured.stderr
    found = json.loads(measured.stdout)
    assert found["n"] == 110
    assert found["made_from"]["waiting"]["share"] < 1
    told = command("plan", f"{memory.url}/a.npy", "--out", tmp_path / "run")
    assert told.exit_code == 0, told.stderr
    assert "--data memory:///vectors --task" in told.stdout
    done = command("run", tmp_path / "run", "--data", memory.url, "-q")
    assert done.exit_code == 0, done.stderr
    merged = command("merge", tmp_path / "run", "--json")
    assert json.loads(merged.stdout)["mean_cosine"] == found["mean_cosine"]
    missing = command("measure", f"{memory.url}/none.npy", "-q")
    assert missing.exit_code == 1
    assert "there is no file 'memory:///vectors/none.npy'" in missing.stderr
    nowhere = command("measure", tmp_path / "none.npy")
    assert nowhere.exit_code == 2
    assert "does not exist" in nowhere.stderr
