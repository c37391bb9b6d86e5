"""The commands, from ``fastaniso scan`` to ``doctor``. Results go to stdout, all else to stderr."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from fastaniso.cli import paper, tasks
from fastaniso.cli.ending import (
    BEYOND,
    FAILED,
    INTERRUPTED,
    MISSING,
    deliver,
    keep_early,
    kept_under,
    progress,
    reported,
)
from fastaniso.cli.machine import check_device, silence_transformers
from fastaniso.cli.options import (
    Backend,
    BinsOption,
    ColumnOption,
    DebugOption,
    Dtype,
    GramOption,
    JsonOption,
    KernelOption,
    MemoryOption,
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
from fastaniso.cli.terminating import terminated_after_a_batch

_EXIT_CODES = (
    "Exit codes: 0 done; 1 the measurement failed (rows that cannot be normalised, a damaged file, too little memory); "
    "2 wrong usage; 3 something needed is missing (a model, a package, a device); 130 interrupted; 143 terminated."
)

app = typer.Typer(
    help="Exact cosine and isotropy statistics of Transformer hidden states.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from fastaniso._version import __version__

        print(__version__)
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog=_EXIT_CODES)
def scan(
    model: Annotated[str, typer.Argument(help="A folder with a model, or a hub id.", metavar="MODEL")],
    further: Annotated[list[Path] | None, typer.Argument(hidden=True, metavar="FILE", exists=True)] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE...", exists=True, help="Plain text, .jsonl, .parquet; one or several, or a folder."),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR...", exists=True, help="Images, or folders of them, for a model of images."),
    ] = None,
    sounds: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR...", exists=True, help="wav, flac, … or folders of them, for a model of sounds."),
    ] = None,
    field: Annotated[
        str, typer.Option(help="Field of a .jsonl record, or column of a table, that holds text.")
    ] = "text",
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens a sequence: 128, or with --chunk-words at most 512.")
    ] = None,
    chunk_words: Annotated[int | None, typer.Option(min=1, help="Cut the text into runs of so many words.")] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=0, help="Seconds of a clip: 10, or what the model reads.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Sequences or images (32) or clips (8) a forward pass.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Stop after so many kept tokens of text.")] = None,
    max_items: Annotated[int | None, typer.Option(min=1, help="Stop after so many images or clips.")] = None,
    gram: GramOption = True,
    attention: Annotated[
        bool, typer.Option("--attention", help="Also queries, keys and attention of every head.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default a GPU if there is one.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Dtype of the model; auto: the checkpoint's.")] = Dtype.float32,
    backend: KernelOption = Backend.auto,
    omit_invalid: OmitOption = False,
    memory_limit: MemoryOption = None,
    out: OutOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Describe the hidden states of a model at every layer, over real text, images or sounds.

    Padding, special tokens, class and register tokens and padded frames are left out. Exact over all ordered pairs of
    kept positions. What ends early keeps what was measured, under --out; the same command goes on from there.
    """
    given = {kind: paths for kind, paths in (("text", text), ("images", images), ("sounds", sounds)) if paths}
    if len(given) != 1:
        raise typer.BadParameter("name data of one kind", param_hint="--text, --images or --sounds")
    ((kind, paths),) = given.items()
    paths = [*paths, *(further or ())]
    with reported(debug) as last:
        from fastaniso.distributed.starting import is_first, joined, launched, own_device
        from fastaniso.scanning import ScanInterrupted, ScanStoppedError
        from fastaniso.scanning import scan as run
        from fastaniso.sources import files_as

        if quiet or not is_first():
            silence_transformers()
        device = own_device(device)
        check_device(device)
        data = files_as(kind, paths, field=field)
        early: ScanInterrupted | ScanStoppedError | None = None
        # Under torchrun every rank runs the model on its share of the batches, and the first one prints and writes;
        # the others wait for it, so that none of them leaves alone.
        with joined(device or "cpu") if launched() else nullcontext() as group:
            with progress(quiet or not is_first(), last) as report:
                try:
                    with kept_under(out), terminated_after_a_batch(report) as told:
                        result = run(
                            model,
                            paths if kind == "text" else data,
                            field=field,
                            max_length=max_length,
                            chunk_words=chunk_words,
                            max_seconds=max_seconds,
                            batch_size=batch_size,
                            max_tokens=max_tokens,
                            max_items=max_items,
                            gram=gram,
                            attention=attention,
                            device=device,
                            dtype=dtype.value,
                            backend=backend.value,
                            invalid="omit" if omit_invalid else "raise",
                            memory_limit=memory_limit,
                            group=group,
                            resume=out,
                            progress=told,
                        )
                except (ScanInterrupted, ScanStoppedError) as stopped:
                    early = stopped
            if early is not None:
                keep_early(early, out if is_first() else None)
            if is_first():
                deliver(result, out, json, draw=result.save_pictures)


@app.command(epilog=_EXIT_CODES)
def measure(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            parser=place,
            help=".npy, .safetensors, .pt, .parquet, .arrow; a folder of shards, or of a Hugging Face data set; or "
            "their URL, such as s3://bucket/vectors/.",
        ),
    ],
    tensor: TensorOption = None,
    column: ColumnOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Also this metric of docs/metrics.md, or all of one and two passes; repeat."),
    ] = None,
    gram: GramOption = True,
    pairs: PairsOption = False,
    bins: BinsOption = 2048,
    threshold: ThresholdOption = None,
    uniformity_t: UniformityOption = 2.0,
    neighbors: NeighborsOption = None,
    device: Annotated[str, typer.Option(help="Where blocks are measured.")] = "cpu",
    backend: KernelOption = Backend.auto,
    omit_invalid: OmitOption = False,
    memory_limit: MemoryOption = None,
    block_rows: Annotated[int | None, typer.Option(min=1, help="Rows read at once.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Write JSON, states and plots here; a run of the same rows and options that stopped goes on.",
        ),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Describe stored vectors, read block by block; the rows of all files are one set. No code runs from a file.

    Ctrl-C keeps what is done, and says how to go on.
    """
    with reported(debug) as last:
        from fastaniso.distributed.starting import launched
        from fastaniso.scanning import measure as run

        check_device(device)
        options: dict[str, Any] = {
            "tensor": tensor,
            "column": column,
            "gram": gram,
            "pairs": pairs,
            "bins": bins,
            "thresholds": threshold or (),
            "uniformity_t": uniformity_t,
            "neighbors": neighbors,
            "device": device,
            "backend": backend.value,
            "invalid": "omit" if omit_invalid else "raise",
        }
        if launched():
            if metric or memory_limit or block_rows:
                raise typer.BadParameter("--metric, --memory-limit and --block-rows are of one process, not of ranks")
            tasks.measure_as_rank(paths, out, options, json=json, quiet=quiet, last=last)
            return
        with progress(quiet, last) as report:
            result = run(
                paths,
                metrics="all" if metric == ["all"] else metric,
                memory_limit=memory_limit,
                block_rows=block_rows,
                resume=out,
                progress=report,
                **options,
            )
        deliver(result, out, json)


@app.command(epilog=_EXIT_CODES)
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", exists=True, file_okay=False, help="Folders that scan or measure --out wrote."),
    ],
    html: Annotated[Path, typer.Option(metavar="FILE", dir_okay=False, help="Write the page here.")],
    title: Annotated[str | None, typer.Option(help="Heading of the page: by default the names of the runs.")] = None,
    debug: DebugOption = False,
) -> None:
    """Make one page of one or several runs side by side: it holds everything it shows, and needs no network.

    Curves of every metric over the layers, drift against anisotropy, spectra, top dimensions, cosines of all pairs
    where they were measured, and what each run was made from.
    """
    with reported(debug):
        from fastaniso.runs import load_report

        written = load_report(*runs).save_html(html, title=title)
        print(f"wrote {written} ({written.stat().st_size / 1e6:.1f} MB)", file=sys.stderr)


@app.command(epilog=f"{_EXIT_CODES} With --fail-beyond, {BEYOND}: something changed beyond the noise.")
def compare(
    before: Annotated[Path, typer.Argument(metavar="A", exists=True, file_okay=False, help="A folder with results.")],
    after: Annotated[Path, typer.Argument(metavar="B", exists=True, file_okay=False, help="Another.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(help='Metrics to show, such as "isoscore"; may be repeated; "all" for all of them.'),
    ] = None,
    fail_beyond: Annotated[
        bool, typer.Option("--fail-beyond", help="End with an exit code of its own if a change is beyond the noise.")
    ] = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what changed between two runs, site by site, and whether it is beyond the noise of the data.

    The noise is that of other data of the same kind: what it likely is where rows of a sequence are alike, and at
    most. Spectral scores have none that follows from what a run keeps. JSON holds every metric.
    """
    with reported(debug):
        from fastaniso.runs import compare as compared
        from fastaniso.runs.table import SHOWN

        comparison = compared(before, after)
        if metric is not None and "all" not in metric:
            comparison = comparison.of(metric)
        if json:
            print(comparison.to_json(indent=2))
        else:
            known = {change.metric for change in comparison.changes}
            print(comparison if metric else comparison.of([name for name in SHOWN if name in known]))
        if fail_beyond and comparison.beyond:
            raise typer.Exit(BEYOND)


@app.command(epilog=_EXIT_CODES)
def doctor(json: JsonOption = False, debug: DebugOption = False) -> None:
    """Tell what this machine can use, and prove each backend on a small case against float64."""
    with reported(debug):
        from fastaniso.doctor import diagnose

        diagnosis = diagnose()
        print(diagnosis.to_json(indent=2) if json else diagnosis)
        if diagnosis.failed:
            raise typer.Exit(FAILED)
        if not diagnosis.usable:
            raise typer.Exit(MISSING)


paper.register(app, _EXIT_CODES)
tasks.register(app, _EXIT_CODES)


def main() -> None:
    """Run the command line and exit."""
    try:
        app(prog_name="fastaniso")
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            # CPython remembers an interrupt that came inside exec() of a string (imports do that for dataclasses) as
            # unhandled, and would die of the signal at exit instead of giving the code.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise
