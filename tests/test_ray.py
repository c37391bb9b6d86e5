"""The tiles of a manifest and the vectors of a data set over a Ray cluster: what one process gives, whatever dies."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from same_states import same_states

import fastaniso
from fastaniso import InvalidRowsError
from fastaniso.progress import Progress
from fastaniso.tasks import Folded, ManifestError, fold, plan_tasks, run_task

ROWS = torch.randn(400, 12, generator=torch.Generator().manual_seed(0)) + 0.3

pytestmark = [
    pytest.mark.slow,  # a cluster takes 10 s to start
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def over_ray() -> Iterator[ModuleType]:
    """``fastaniso.distributed.ray`` on a cluster of two cores of this machine."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'fastaniso[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        # Ray would write a token of its own into the home folder.
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
        import fastaniso.distributed.ray

        yield fastaniso.distributed.ray
        ray.shutdown()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for number, part in enumerate(ROWS.split(150)):
        np.save(folder / f"part-{number}.npy", part.numpy())
    return folder


def planned(data: Path, name: str, tiles: int) -> Path:
    folder = data.parent / name
    plan_tasks(data, folder, pairs=True, bins=64, tiles=tiles)
    return folder


def same_bits(ours: Folded, theirs: Folded) -> bool:
    return same_states(ours.result.states, theirs.result.states)


def undisturbed(data: Path, tiles: int) -> Folded:
    folder = planned(data, "whole", tiles)
    run_task(folder, data)
    return fold(folder)


def test_tiles_over_a_cluster_give_the_bits_of_one_process(over_ray: ModuleType, data: Path) -> None:
    folder, seen = planned(data, "run", 10), list[Progress]()
    assert run_task(folder, data, task=(0, 5)) == 2
    assert over_ray.run(folder, data, num_tasks=3, progress=seen.append) == 12
    assert (seen[-1].done, seen[-1].unit, seen[-1].share) == (14, "tiles", 1.0)
    assert same_bits(fold(folder), undisturbed(data, 10))
    assert over_ray.run(folder, data) == 0
    (folder / "tiles" / "pairs-0-1.safetensors").unlink()
    assert over_ray.run(folder, data) == 1


def killed_in_the_middle(folder: Path) -> threading.Thread:
    """Kills a worker at a share of the tiles of ``folder``, once some are done; what was there then is in ``there``."""

    def kill() -> None:
        name, tiles = f"ray::{folder.name} ", folder / "tiles"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            workers = [
                int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if p.read_text().startswith(name)
            ]
            if workers and len(list(tiles.glob("[!.]*"))) >= 20:
                os.kill(workers[0], signal.SIGKILL)
                killer.there = len(list(tiles.glob("[!.]*")))  # type: ignore[attr-defined]
                return

    killer = threading.Thread(target=kill)
    killer.start()
    return killer


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="workers are found by /proc")
@pytest.mark.parametrize("retries", [3, 0])
def test_a_worker_killed_in_the_middle(over_ray: ModuleType, data: Path, retries: int) -> None:
    import ray

    folder = planned(data, f"killed-{secrets.token_hex(4)}", 800)
    killer = killed_in_the_middle(folder)
    if retries:
        assert over_ray.run(folder, data, num_tasks=1, max_retries=retries) == 860
        killer.join()
    else:
        with pytest.raises(ray.exceptions.WorkerCrashedError):
            over_ray.run(folder, data, num_tasks=1, max_retries=retries)
        killer.join()
        left = 860 - len(list((folder / "tiles").glob("[!.]*")))
        assert over_ray.run(folder, data) == left
    assert 20 <= killer.there < 860  # type: ignore[attr-defined]
    assert same_bits(fold(folder), undisturbed(data, 800))


NODE_LOST = """
import sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
import fastaniso.distributed.ray

folder, data = Path(sys.argv[1]), Path(sys.argv[2])
memory = {"object_store_memory": 80 << 20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory})
lost, _ = (cluster.add_node(num_cpus=1, **memory) for _ in range(2))
ray.init(address=cluster.address, log_to_driver=False)

def kill():
    while len(list((folder / "tiles").glob("[!.]*"))) < 20:
        pass
    cluster.remove_node(lost, allow_graceful=False)
    print("lost at", len(list((folder / "tiles").glob("[!.]*"))))

killer = threading.Thread(target=kill)
killer.start()
print("done", fastaniso.distributed.ray.run(folder, data, num_tasks=2))
killer.join()
alive, until = 3, time.monotonic() + 60
while alive == 3 and time.monotonic() < until:  # the cluster may notice after the work has ended
    alive = sum(node["Alive"] for node in ray.nodes())
print("alive", alive)
ray.shutdown()
cluster.shutdown()
"""


def test_a_node_lost_in_the_middle(over_ray: ModuleType, data: Path) -> None:
    folder = planned(data, "run", 800)
    # In a process of its own, which has no other cluster.
    arguments = [sys.executable, "-c", NODE_LOST, str(folder), str(data)]
    told = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    found = {name: int(number) for name, number in re.findall(r"^(lost at|done|alive) (\d+)$", told, re.MULTILINE)}
    assert 20 <= found["lost at"] < 860
    assert (found["done"], found["alive"]) == (860, 2)
    assert same_bits(fold(folder), undisturbed(data, 800))


def test_what_goes_wrong_with_tiles(over_ray: ModuleType, data: Path) -> None:
    folder = planned(data, "run", 3)
    with pytest.raises(ValueError, match="num_tasks: expected a positive int or None, got 0"):
        over_ray.run(folder, data, num_tasks=0)
    with pytest.raises(ManifestError, match=r"holds no manifest\.json"):
        over_ray.run(data, data)
    np.save(data / "part-1.npy", ROWS[:150].numpy())
    # On a worker, and raised here as what it was there.
    with pytest.raises(ManifestError, match="changed since the work was planned"):
        over_ray.run(folder, data)


@pytest.mark.parametrize("form", ["tensors", "lists", "parquet"])
def test_a_data_set_gives_what_describe_gives(over_ray: ModuleType, tmp_path: Path, form: str) -> None:
    import pyarrow
    import pyarrow.parquet
    import ray

    table = pyarrow.table({"id": np.arange(400), "vectors": pyarrow.array(list(ROWS.numpy()))})
    if form == "tensors":
        ds = ray.data.from_numpy(np.array_split(ROWS.numpy(), 20)).rename_columns({"data": "vectors"})
    elif form == "lists":
        ds = ray.data.from_arrow([table.slice(0, 1), table.slice(1, 250), table.slice(251, 0), table.slice(251)])
    else:
        pyarrow.parquet.write_table(table, tmp_path / "vectors.parquet")
        ds = ray.data.read_parquet(str(tmp_path / "vectors.parquet"))
    kept = ds.context.execution_options.preserve_order
    found = over_ray.measure_dataset(ds, "vectors")
    expected = fastaniso.describe(ROWS)
    assert found.n == 400
    for name in ("mean_cosine", "cosine_std", "effective_rank", "isoscore"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-6)
    again = over_ray.measure_dataset(ds, "vectors")
    assert (found.mean_cosine, found.effective_rank) == (again.mean_cosine, again.effective_rank)
    assert ds.context.execution_options.preserve_order == kept


def test_a_batch_whose_worker_died_counts_once(over_ray: ModuleType, tmp_path: Path) -> None:
    import ray

    died = str(tmp_path / "died")

    def die_once(batch: Any) -> Any:
        if batch["data"][0, 0] == ROWS[150, 0] and not os.path.exists(died):
            with open(died, "w"):
                os.kill(os.getpid(), signal.SIGKILL)
        return batch

    ds = ray.data.from_numpy(np.array_split(ROWS.numpy(), 8))
    found = over_ray.measure_dataset(ds.map_batches(die_once, batch_size=None), "data")
    assert os.path.exists(died)
    undisturbed = over_ray.measure_dataset(ds, "data")
    assert (found.n, found.mean_cosine) == (400, undisturbed.mean_cosine)


def test_what_goes_wrong_with_data_sets(over_ray: ModuleType) -> None:
    import pyarrow
    import ray

    def of(*columns: Any) -> Any:
        return ray.data.from_arrow([pyarrow.table({"vectors": column}) for column in columns])

    bad = ROWS.clone()
    bad[7] = 0
    lists = pyarrow.array(list(bad.numpy()))
    with pytest.raises(InvalidRowsError, match=r"vectors, counted from the start of a batch: row 7 is zero"):
        over_ray.measure_dataset(of(lists), "vectors")
    found = over_ray.measure_dataset(of(lists), "vectors", gram=False, invalid="omit", batch_size=64)
    assert (found.n, found.dropped.zero) == (399, 1)
    for column, message in (
        (pyarrow.array([[1.0, 2.0], None]), "row 1 is null"),
        (pyarrow.array([[1.0, 2.0], [1.0]]), "row 1 holds 1 numbers and the rows before it 2"),
        (pyarrow.array(["word"]), "column: 'vectors' of ds is string"),
        (pyarrow.array([], pyarrow.list_(pyarrow.float32())), "ds: holds no rows"),
    ):
        with pytest.raises(ValueError, match=message):
            over_ray.measure_dataset(of(column), "vectors")
    with pytest.raises(ValueError, match="expected tensors of one axis"):
        over_ray.measure_dataset(ray.data.from_numpy(np.ones((5, 2, 3), np.float32)), "data")
    # Refused before anything runs, and where only a worker can tell.
    for ds in (of(lists), of(lists).map_batches(lambda batch: batch)):
        with pytest.raises(ValueError, match="the data set has no 'embedding'; expected one of vectors"):
            over_ray.measure_dataset(ds, "embedding")
    with pytest.raises(ValueError, match="gram: expected"):
        over_ray.measure_dataset(of(lists), "vectors", gram="all")


def test_ray_is_imported_by_name_only_and_has_to_be_initialised() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'fastaniso[ray]'")
    code = (
        "import sys; import fastaniso.distributed, fastaniso.tasks; assert 'ray' not in sys.modules\n"
        "import fastaniso.distributed.ray as over_ray\n"
        "try: over_ray.run('a', 'b')\n"
        "except RuntimeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Ray is not initialised: call ray.init() first" in done.stdout
