"""The tiles of a manifest, and the vectors of a ``ray.data.Dataset``, over a Ray cluster.

Import it by name, ``import fastaniso.distributed.ray``: nothing else in fastaniso imports Ray. What is sent is names,
numbers and the caller's rows, and states as bytes of safetensors; fastaniso has to be installed on every node.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

from torch import Tensor

from fastaniso.accumulator import Accumulator
from fastaniso.progress import Meter, Report, reporter
from fastaniso.result import Description
from fastaniso.sources import as_location
from fastaniso.sources.columns import Column
from fastaniso.state import Gram, bytes_to_state, state_to_bytes
from fastaniso.statistics.describe import describe as described
from fastaniso.statistics.host import check_invalid_option, dropped_rows, to_host
from fastaniso.tasks import Manifest, run_task
from fastaniso.tasks.store import Store

try:
    import ray
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("fastaniso.distributed.ray needs Ray: pip install 'fastaniso[ray]'") from error

_STATE = "state"
_SECONDS_BETWEEN_LOOKS = 2.0
_MERGED_AT_ONCE = 8


def run(
    folder: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    num_tasks: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    resources: Mapping[str, float] | None = None,
    max_retries: int = 3,
    progress: Report | bool | None = None,
) -> int:
    """Do what is not done yet of the tiles of the manifest in ``folder`` by tasks on a Ray cluster; how many tiles.

    As ``fastaniso.tasks.run_task`` does a share of them, in the same files: a task that has died is started again and
    does what is left of its share, and so does the next call; ``fastaniso.tasks.fold`` gives the same bits whoever did
    the tiles. Ray is initialised by the caller.

    Args:
        folder: That of the manifest, at a path that this process and all nodes see.
        data: The folder of the files that the manifest names, at such a path, too.
        num_tasks: Into how many shares the tiles are cut; by default four for each task that the cluster now has room
            for, or one a tile.
        num_cpus: Cores of one task. The bits do not depend on them.
        num_gpus: GPUs of one task: then its tiles are measured on one, and the manifest has to be planned for it.
        resources: Other resources of one task, by the names that Ray knows them by.
        max_retries: How often a task is started again whose worker or node has died; −1 for ever.
        progress: True for a bar on stderr, or a function that is given a ``Progress`` as tiles are done.

    Raises:
        ManifestError: The manifest is damaged, or of other rows than those at ``data``.
        ray.exceptions.WorkerCrashedError: A task has died more often than ``max_retries``; what it did is kept.
        RuntimeError: Ray is not initialised, or nodes have another ``folder`` at that path than this process.
    """
    _check_cluster()
    if num_tasks is not None and (isinstance(num_tasks, bool) or not isinstance(num_tasks, int) or num_tasks < 1):
        raise ValueError(f"num_tasks: expected a positive int or None, got {num_tasks!r}")
    folder, where = Path(folder).absolute(), as_location(data)
    data = str(where.absolute() if isinstance(where, Path) else data)
    manifest = Manifest.read(folder)
    store, tiles = Store(folder, manifest), manifest.tiles
    left = [tile for tile in tiles if not store.has(tile)]
    if num_tasks is None:
        num_tasks = min(len(tiles), 4 * _room(num_cpus, num_gpus, resources))
    if not left:
        return 0
    options: dict[str, Any] = {
        **{"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": dict(resources or {})},
        "max_retries": max_retries,
    }
    device = "cuda" if num_gpus else "cpu"
    one = ray.remote(run_task)
    waiting = [
        one.options(name=f"{folder.name} {share}/{num_tasks}", **options).remote(
            str(folder), data, task=(share, num_tasks), device=device
        )
        for share in range(num_tasks)
    ]
    begun = len(left)
    try:
        with reporter(progress) as report, _own_errors():
            meter = Meter(report, "tiles", "tiles", total=len(tiles), done=len(tiles) - begun)
            while waiting:
                finished, waiting = ray.wait(waiting, timeout=_SECONDS_BETWEEN_LOOKS)
                ray.get(finished)
                # What is there counts, not what tasks say: one that died and was started again knows its second half.
                before, left = len(left), [tile for tile in left if not store.has(tile)]
                if len(left) < before:
                    meter.step(before - len(left))
    finally:
        for reference in waiting:
            ray.cancel(reference)
    if left:
        raise RuntimeError(
            f"{folder}: {len(left):,} of {begun:,} tiles were done, and are not there; name a folder that this process "
            "and all nodes of the cluster share"
        )
    return begun


def measure_dataset(
    ds: ray.data.Dataset,
    column: str,
    *,
    gram: bool | str = True,
    backend: str = "auto",
    invalid: str = "raise",
    batch_size: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
) -> Description:
    """``fastaniso.describe`` of the vectors in a column of a Ray data set: one pass, batches measured where they lie.

    Each batch leaves its state, O(d) numbers or O(d²) with ``gram``, and a tree of tasks merges these, eight at a time,
    in the order of the rows: the same bits on any cluster, as long as the data set is cut into the same batches.
    Memory is that of the batches under way, and in Ray's object store, which spills to disk, one state a batch.

    Args:
        ds: The data set; nothing of it comes to this process but the last state.
        column: Its column of vectors: lists of floats, all of one length, or tensors of one axis. Nulls are refused.
        gram: As for ``describe``.
        backend: The kernel; as for ``describe``.
        invalid: As for ``describe``.
        batch_size: Rows of a batch; by default each block of the data set is one, which copies nothing.
        num_cpus: Cores of one task.
        num_gpus: GPUs of one task: batches then are copied to one.

    Raises:
        ValueError: The column is missing, or holds no vectors of one length, or the data set has no rows.
        InvalidRowsError: Rows are zero or hold NaN or Inf, and ``invalid="raise"``.
        RuntimeError: Ray is not initialised.
    """
    _check_cluster()
    check_invalid_option(invalid)
    Accumulator(gram=gram, backend=backend)  # refuses options here, not on a worker
    device = "cuda" if num_gpus else "cpu"
    schema = ds.schema(fetch_if_missing=False)
    if schema is not None:
        # Known beforehand, as of Parquet: then nothing else need be read.
        _check_column(column, schema.names)
        ds = ds.select_columns([column])
    measured = ds.map_batches(
        _measured,
        fn_kwargs={"column": column, "gram": gram, "backend": backend, "device": device},
        batch_format="pyarrow",
        batch_size=batch_size,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )
    merged = ray.remote(_merged).options(num_cpus=num_cpus)
    with _own_errors():
        tables = _in_order(measured)
        while True:
            groups = [tables[at : at + _MERGED_AT_ONCE] for at in range(0, len(tables), _MERGED_AT_ONCE)]
            tables = [merged.remote(*group) for group in groups]
            if len(tables) <= 1:
                break
        states = [state for table in ray.get(tables) for state in _states(table)]
    if not states:
        raise ValueError("ds: holds no rows, so that their dimension is not known")
    (state,) = states
    moments = state.moments if isinstance(state, Gram) else state
    dropped_rows(to_host(moments.counts)[0], invalid, name=f"{column}, counted from the start of a batch")
    return described(state, invalid=invalid)


def _check_cluster() -> None:
    if not ray.is_initialized():
        raise RuntimeError("Ray is not initialised: call ray.init() first, which starts a cluster or joins one")


def _check_column(column: str, names: Sequence[str]) -> None:
    if column not in names:
        raise ValueError(f"column: the data set has no {column!r}; expected one of {', '.join(names)}")


def _room(num_cpus: float, num_gpus: float, resources: Mapping[str, float] | None) -> int:
    """How many tasks the cluster can run at once."""
    there = ray.cluster_resources()
    wanted = {"CPU": num_cpus, "GPU": num_gpus, **(resources or {})}
    return max(1, int(min((there.get(name, 0) // most for name, most in wanted.items() if most), default=1)))


@contextmanager
def _own_errors() -> Iterator[None]:
    """What went wrong in a task is raised as it was there, with Ray's account of it as the cause."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _in_order(ds: ray.data.Dataset) -> list[Any]:
    """References to the tables of ``ds`` in its order, which Ray keeps only if it is asked to."""
    context = ds.context
    ordered, original = context.execution_options.preserve_order, context.raise_original_map_exception
    context.execution_options.preserve_order = context.raise_original_map_exception = True
    try:
        return list(ds.to_arrow_refs())
    finally:
        # The caller's data set has the same context.
        context.execution_options.preserve_order, context.raise_original_map_exception = ordered, original


def _measured(table: Any, *, column: str, gram: bool | str, backend: str, device: str) -> Any:
    """The state of a batch of rows, in a table of one row; of none if there are none."""
    if not table.num_rows:
        return _table([])
    _check_column(column, table.column_names)
    accumulator = Accumulator(gram=gram, backend=backend)
    for rows in _vectors(table, column):
        accumulator.update(rows.to(device))
    return _table([accumulator.state])


def _vectors(table: Any, column: str) -> Iterator[Tensor]:
    """The rows of the column in the pieces that Arrow has it in."""
    import pyarrow

    start = 0
    for piece in table.column(column).chunks:
        if isinstance(piece, pyarrow.ExtensionArray):
            # Ray's tensors: lists of numbers beneath, of the shape that the type says.
            if len(getattr(piece.type, "shape", ())) != 1:
                raise ValueError(f"column: {column!r} is {piece.type}; expected tensors of one axis, all of one length")
            piece = piece.storage
        if len(piece):
            kind = Column("ds", pyarrow.schema([(column, piece.type)]), column)
            kind.dim_of(piece)
            yield kind.rows(piece, start)
        start += len(piece)


def _merged(*tables: Any) -> Any:
    """All states of the tables merged, in their order; in a table as theirs."""
    states = (state for table in tables for state in _states(table))
    first = next(states, None)
    return _table([] if first is None else [reduce(lambda one, other: one.merge(other), states, first)])


def _table(states: list[Any]) -> Any:
    import pyarrow

    # Large: a scatter of 16,384 dimensions alone is 2 GiB.
    return pyarrow.table({_STATE: pyarrow.array([state_to_bytes(state) for state in states], pyarrow.large_binary())})


def _states(table: Any) -> Iterator[Any]:
    # Ray keeps no columns of a table without rows.
    for value in table.column(_STATE) if table.num_rows else ():
        yield bytes_to_state(value.as_py())
