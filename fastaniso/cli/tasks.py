"""The commands ``fastaniso plan``, ``run`` and ``merge``: one measurement by any number of processes."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastaniso.cli.ending import deliver, progress, reported
from fastaniso.cli.machine import check_device
from fastaniso.cli.options import (
    Backend,
    BinsOption,
    ColumnOption,
    DebugOption,
    GramOption,
    JsonOption,
    KernelOption,
    NeighborsOption,
    OmitOption,
    OutOption,
    PairsOption,
    QuietOption,
    TensorOption,
    ThresholdOption,
    UniformityOption,
    place,
)

if TYPE_CHECKING:
    from fastaniso.progress import Progress

TERMINATED = 143

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of the manifest.", file_okay=False)]


def plan(
    data: Annotated[
        str, typer.Argument(metavar="DATA", parser=place, help="A file of vectors, or a folder of shards; or its URL.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", file_okay=False, help="Where the manifest is written.")],
    tensor: TensorOption = None,
    column: ColumnOption = None,
    gram: GramOption = True,
    pairs: PairsOption = False,
    bins: BinsOption = 2048,
    threshold: ThresholdOption = None,
    uniformity_t: UniformityOption = 2.0,
    neighbors: NeighborsOption = None,
    tiles: Annotated[int | None, typer.Option(min=1, help="At least about so many tiles.")] = None,
    device: Annotated[str, typer.Option(help="The kind of device that runs will use.")] = "cpu",
    backend: KernelOption = Backend.auto,
    debug: DebugOption = False,
) -> None:
    """Cut a measurement of stored vectors into tiles that any number of processes do; nothing is measured yet."""
    with reported(debug):
        from fastaniso.tasks import plan_tasks
        from fastaniso.tasks.planning import data_folder

        manifest = plan_tasks(
            data,
            out,
            tensor=tensor,
            column=column,
            gram=gram,
            pairs=pairs,
            bins=bins,
            thresholds=threshold or (),
            uniformity_t=uniformity_t,
            neighbors=neighbors,
            tiles=tiles,
            backend=backend.value,
            device=device,
        )
        print(
            f"{manifest.count:,} rows of {manifest.dim} in {manifest.blocks:,} blocks: {len(manifest.tiles):,} tiles\n"
            f"next, for i from 0 to N−1: fastaniso run {out} --data {data_folder(data)} --task i/N"
            f"\nthen: fastaniso merge {out}"
        )


def run(
    folder: Folder,
    data: Annotated[
        str, typer.Option(metavar="DIR", parser=place, help="The folder of the files planned for, or its URL.")
    ],
    task: Annotated[
        str | None,
        typer.Option(metavar="i/N", help="Which share of the tiles, from 0/N to N−1/N; under torchrun, the rank's."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where tiles are measured.")] = "cpu",
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Do one share of the tiles of a manifest; what is done already is left, so the same command goes on.

    Killed or interrupted, it loses the tile under way. SIGTERM, which schedulers send before they kill, ends it at once
    with exit code 143.
    """
    # torchrun tells each of its processes which of how many it is.
    task = task or f"{os.environ.get('RANK', 0)}/{os.environ.get('WORLD_SIZE', 1)}"
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", task)
    if found is None or int(found[1]) >= int(found[2]):
        raise typer.BadParameter(f"expected i/N with 0 ≤ i < N, got {task}", param_hint="--task")
    with reported(debug) as last, _ended_by_sigterm():
        from fastaniso.tasks import run_task

        check_device(device)
        with progress(quiet, last) as report:
            done = run_task(folder, data, task=(int(found[1]), int(found[2])), device=device, progress=report)
        print(f"task {task}: {done:,} tiles done, none is left")


def merge(
    folder: Folder,
    partial: Annotated[bool, typer.Option("--partial", help="Fold what is there, though tiles are missing.")] = False,
    omit_invalid: OmitOption = False,
    out: OutOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Fold the states that all runs left into one result, the same for any number of them; says what is missing.

    Exit code 1 if tiles are missing, unless --partial.
    """
    with reported(debug):
        from fastaniso.tasks import fold

        folded = fold(folder, partial=partial, invalid="omit" if omit_invalid else "raise")
        deliver(folded.result, out, json)
        if folded.missing:
            names = ", ".join(tile.files[0] for tile in folded.missing[:8]) + (" …" if len(folded.missing) > 8 else "")
            print(
                f"fastaniso: {len(folded.missing):,} of {folded.total:,} tiles are missing and not in these figures: "
                f"{names}",
                file=sys.stderr,
            )


def measure_as_rank(
    paths: list[str], out: Path | None, options: dict[str, Any], *, json: bool, quiet: bool, last: list[Progress]
) -> None:
    """``fastaniso measure`` as one of the processes that torchrun started; the first one prints and writes."""
    if out is None:
        raise typer.BadParameter("ranks meet in a folder that all of them see; name one", param_hint="--out")
    if len(paths) != 1:
        raise typer.BadParameter("by ranks one file or one folder of shards is measured", param_hint="PATH")
    from fastaniso.distributed.starting import is_first
    from fastaniso.tasks import measure_on_ranks

    with progress(quiet or not is_first(), last) as report:
        result = measure_on_ranks(paths[0], out / "tasks", progress=report, **options)
    if is_first():
        deliver(result, out, json)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """What is under way unwinds, so that nothing half written is left."""

    def terminated(number: int, frame: FrameType | None) -> None:
        print("fastaniso: terminated; the tiles done are kept, and the same command goes on", file=sys.stderr)
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def register(app: typer.Typer, epilog: str) -> None:
    """Add the commands to the program's."""
    for command in (plan, run, merge):
        app.command(epilog=epilog)(command)
