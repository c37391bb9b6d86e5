"""``storage_options`` reach the file system of a URL, and nothing else: no result, no manifest, no error."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastaniso
from fastaniso.sources import as_location, open_source
from fastaniso.tasks import fold, plan_tasks, run_task

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402 (behind the check that it is there)

ROWS = np.random.default_rng(0).normal(size=(90, 8)).astype("float32") + 0.3
SECRET = "open-sesame"
OPTIONS = {"key": SECRET}
URL = "guarded://vectors"


class Guarded(MemoryFileSystem):
    """Files in memory for who has the key."""

    protocol = "guarded"
    store: dict[str, Any] = {}  # noqa: RUF012 (as fsspec has it)
    pseudo_dirs: list[str] = [""]  # noqa: RUF012

    def __init__(self, key: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.key = key

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.removeprefix("guarded://"))
        return stripped

    def info(self, path: str, **options: Any) -> Any:
        if self.key != SECRET:
            raise PermissionError(f"{path}: the key is wrong")
        return super().info(path, **options)


@pytest.fixture(autouse=True)
def guarded() -> Iterator[None]:
    fsspec.register_implementation("guarded", Guarded, clobber=True)
    for name, rows in (("a.npy", ROWS[:40]), ("b.npy", ROWS[40:])):
        content = io.BytesIO()
        np.save(content, rows)
        Guarded(key=SECRET).pipe(f"/vectors/{name}", content.getvalue())
    yield
    Guarded.store.clear()


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_measurement(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="the key is wrong"):
        fastaniso.measure(URL)
    found = fastaniso.measure(URL, pairs=True, storage_options=OPTIONS, resume=tmp_path)
    # Two files, and so two partial sums.
    whole = fastaniso.measure(rows_file(tmp_path)).description.mean_cosine
    assert found.description.mean_cosine == pytest.approx(whole, rel=1e-6)
    assert SECRET not in found.to_json()
    assert SECRET not in json.dumps(found.provenance)
    assert SECRET.encode() not in written(tmp_path)
    assert SECRET not in str(as_location(URL, OPTIONS))


def rows_file(folder: Path) -> Path:
    path = folder / "rows.npy"
    np.save(path, ROWS)
    return path


def test_tasks(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="the key is wrong"):
        plan_tasks(URL, tmp_path / "run")
    plan_tasks(URL, tmp_path / "run", pairs=True, tiles=6, storage_options=OPTIONS)
    with pytest.raises(PermissionError, match="the key is wrong"):
        run_task(tmp_path / "run", URL)
    assert run_task(tmp_path / "run", URL, storage_options=OPTIONS) > 1
    result = fold(tmp_path / "run").result
    assert result.pairs is not None
    assert result.pairs.n == 90
    assert SECRET.encode() not in written(tmp_path)
    assert SECRET not in result.to_json()


def test_several_urls() -> None:
    source = open_source([f"{URL}/b.npy", f"{URL}/a.npy"], storage_options=OPTIONS)
    assert torch.equal(source.rows(0, 90), torch.from_numpy(np.concatenate((ROWS[40:], ROWS[:40]))))


def test_they_are_for_urls(tmp_path: Path) -> None:
    path = rows_file(tmp_path)
    for given in (path, str(path), f"file://{path}", [f"{URL}/a.npy", str(path)]):
        with pytest.raises(
            ValueError, match=r"storage_options: are for a URL that fsspec opens, got '.*rows.npy', a path"
        ):
            open_source(given, storage_options=OPTIONS)
    with pytest.raises(ValueError, match="got an opened location"):
        open_source(as_location(URL, OPTIONS), storage_options=OPTIONS)
    with pytest.raises(ValueError, match="storage_options: are for a URL that fsspec opens, got a Mapped"):
        open_source(open_source(path), storage_options=OPTIONS)
    with pytest.raises(TypeError, match="storage_options: expected a dict, got str") as told:
        fastaniso.measure(URL, storage_options=SECRET)  # type: ignore[arg-type]
    assert SECRET not in str(told.value)
