"""The command line: ``fastaniso scan``, ``measure`` and ``doctor``. Results go to stdout, all else to stderr."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from fastaniso.progress import Report
    from fastaniso.scanning import Checkpoint, MeasureResult, Progress, ScanResult

FAILED, MISSING, INTERRUPTED = 1, 3, 130

_EXIT_CODES = (
    "Exit codes: 0 done; 1 the measurement failed (rows that cannot be normalised, a damaged file, too little memory); "
    "2 wrong usage; 3 something needed is missing (a model, a package, a device); 130 interrupted."
)

app = typer.Typer(
    help="Exact cosine and isotropy statistics of Transformer hidden states.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Dtype(StrEnum):
    """Dtypes a model can be loaded in."""

    auto = "auto"
    float32 = "float32"
    float64 = "float64"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Backend(StrEnum):
    """Kernels that can be asked for."""

    auto = "auto"
    triton = "triton"
    cpu = "cpu"
    reference = "reference"


_Gram = Annotated[bool, typer.Option(help="Also the std of the cosine and the spectral scores (O(d²) memory a site).")]
_BackendOption = Annotated[Backend, typer.Option(help="Kernel; an error where it cannot run.")]
_Omit = Annotated[bool, typer.Option("--omit-invalid", help="Leave out zero, NaN and Inf rows instead of failing.")]
_MemoryLimit = Annotated[str | None, typer.Option(metavar="BYTES", help='Fail before starting above this: "2 GB".')]
_Out = Annotated[Path | None, typer.Option(metavar="DIR", file_okay=False, help="Write JSON, states and plots here.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
_Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


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
    further: Annotated[
        list[Path] | None, typer.Argument(hidden=True, metavar="FILE", exists=True, dir_okay=False)
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE...", exists=True, dir_okay=False, help="Plain text, or .jsonl; one or several."),
    ] = None,
    field: Annotated[str, typer.Option(help="Field of a .jsonl record that holds its text.")] = "text",
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens a sequence: 128, or with --chunk-words at most 512.")
    ] = None,
    chunk_words: Annotated[int | None, typer.Option(min=1, help="Cut the text into runs of so many words.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences a forward pass.")] = 32,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Stop after so many kept tokens.")] = None,
    gram: _Gram = True,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default a GPU if there is one.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Dtype of the model; auto: the checkpoint's.")] = Dtype.float32,
    backend: _BackendOption = Backend.auto,
    omit_invalid: _Omit = False,
    memory_limit: _MemoryLimit = None,
    out: _Out = None,
    json: _Json = False,
    quiet: _Quiet = False,
    debug: _Debug = False,
) -> None:
    """Describe the hidden states of a text model at every layer, over real text.

    Padding and special tokens are left out. Exact over all ordered pairs of kept tokens.
    """
    files = [*(text or ()), *(further or ())]
    if not files:
        raise typer.BadParameter("name at least one text file", param_hint="--text")
    with _reported(debug) as last:
        from fastaniso.scanning import scan as run

        if quiet:
            _silence_transformers()
        _check_device(device)
        with _progress(quiet, last) as report:
            result = run(
                model,
                files,
                field=field,
                max_length=max_length,
                chunk_words=chunk_words,
                batch_size=batch_size,
                max_tokens=max_tokens,
                gram=gram,
                device=device,
                dtype=dtype.value,
                backend=backend.value,
                invalid="omit" if omit_invalid else "raise",
                memory_limit=memory_limit,
                progress=report,
            )
        _deliver(result, out, json)


@app.command(epilog=_EXIT_CODES)
def measure(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            exists=True,
            help=".npy, .safetensors, .pt, .parquet, .arrow; a folder of shards, or of a Hugging Face data set.",
        ),
    ],
    tensor: Annotated[str | None, typer.Option(help="Name of the tensor, where a file holds several.")] = None,
    column: Annotated[str | None, typer.Option(help="Name of the column, where a table holds several.")] = None,
    gram: _Gram = True,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Also histogram, quantiles, extrema and shape over all pairs, O(n²).")
    ] = False,
    bins: Annotated[int, typer.Option(min=64, max=8192, help="Bins of the histogram.")] = 2048,
    threshold: Annotated[
        list[float] | None, typer.Option(min=-1, max=1, help="Share of pairs above this cosine; may be repeated.")
    ] = None,
    uniformity_t: Annotated[float, typer.Option(help="The t of the uniformity.")] = 2.0,
    neighbors: Annotated[
        int | None, typer.Option(min=1, max=128, metavar="K", help="Also the K nearest neighbours of each row, O(n²).")
    ] = None,
    device: Annotated[str, typer.Option(help="Where blocks are measured.")] = "cpu",
    backend: _BackendOption = Backend.auto,
    omit_invalid: _Omit = False,
    memory_limit: _MemoryLimit = None,
    block_rows: Annotated[int | None, typer.Option(min=1, help="Rows read at once.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Write JSON, states and plots here; a run of the same rows and options that stopped goes on.",
        ),
    ] = None,
    json: _Json = False,
    quiet: _Quiet = False,
    debug: _Debug = False,
) -> None:
    """Describe stored vectors, read block by block; the rows of all files are one set. No code runs from a file.

    Ctrl-C keeps what is done, and says how to go on.
    """
    with _reported(debug) as last:
        from fastaniso.scanning import measure as run

        _check_device(device)
        with _progress(quiet, last) as report:
            result = run(
                paths,
                tensor=tensor,
                column=column,
                gram=gram,
                pairs=pairs,
                bins=bins,
                thresholds=threshold or (),
                uniformity_t=uniformity_t,
                neighbors=neighbors,
                device=device,
                backend=backend.value,
                invalid="omit" if omit_invalid else "raise",
                memory_limit=memory_limit,
                block_rows=block_rows,
                resume=out,
                progress=report,
            )
        _deliver(result, out, json)


@app.command(epilog=_EXIT_CODES)
def doctor(json: _Json = False, debug: _Debug = False) -> None:
    """Tell what this machine can use, and prove each backend on a small case against float64."""
    with _reported(debug):
        from fastaniso.doctor import diagnose

        diagnosis = diagnose()
        print(diagnosis.to_json(indent=2) if json else diagnosis)
        if diagnosis.failed:
            raise typer.Exit(FAILED)
        if not diagnosis.usable:
            raise typer.Exit(MISSING)


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


@contextmanager
def _reported(debug: bool) -> Iterator[list[Progress]]:
    """One line on stderr and a stable exit code for whatever ends the body early; it keeps the last progress told."""
    last: list[Progress] = []
    try:
        yield last
    except KeyboardInterrupt as stop:
        _end(_interrupted(getattr(stop, "checkpoint", None), last), INTERRUPTED)
    except (typer.Exit, typer.BadParameter):
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        _end(_one_line(error), MISSING if _is_missing(error) else FAILED)


@contextmanager
def _progress(quiet: bool, last: list[Progress]) -> Iterator[Report]:
    """A bar; it is gone before anything else is printed."""
    from fastaniso.progress import bar

    with nullcontext() if quiet else bar() as show:

        def report(progress: Progress) -> None:
            last[:] = [progress]
            if show is not None:
                show(progress)

        yield report


def _interrupted(checkpoint: Checkpoint | None, last: list[Progress]) -> str:
    """What an interruption leaves, and of a measurement the command that goes on: what is done is kept."""
    if checkpoint is None:
        done = f"after {last[0].done:,} {last[0].unit}" if last else "before the first step"
        return f"interrupted {done}; nothing was written"
    arguments = sys.argv[1:]
    if checkpoint.folder is None:
        arguments = [*arguments, "--out", str(checkpoint.default_folder)]
    folder = checkpoint.folder or checkpoint.default_folder
    try:
        checkpoint.save(folder)
    except KeyboardInterrupt:
        return f"interrupted while writing: what is under {folder} may lack the last steps"
    return f"interrupted; what is done is kept under {folder}; go on with: {shlex.join(['fastaniso', *arguments])}"


def _deliver(result: ScanResult | MeasureResult, out: Path | None, json: bool) -> None:
    if out is not None:
        try:
            written = result.save(out)
        except KeyboardInterrupt:
            _end(f"interrupted while writing: what is under {out} is not complete", INTERRUPTED)
        pictures = sum(path.suffix == ".png" for path in written)
        without = "" if pictures else "; no plots: matplotlib is not installed (pip install 'fastaniso[plot]')"
        print(f"wrote {len(written)} files under {out}{without}", file=sys.stderr)
    print(result.to_json(indent=2) if json else result)


def _silence_transformers() -> None:
    """transformers and the hub show bars of their own while they load."""
    # Where it is not installed, loading the model says so in better words.
    with suppress(ModuleNotFoundError):
        import_module("transformers.utils.logging").disable_progress_bar()


class _DeviceMissingError(RuntimeError):
    pass


def _check_device(device: str | None) -> None:
    if device is None:
        return
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise typer.BadParameter(f"{device!r} names no device", param_hint="--device") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise _DeviceMissingError(f"device: {device!r} was asked for, and torch finds no GPU here")


def _is_missing(error: BaseException) -> bool:
    from fastaniso.models import ModelNotFoundError

    return isinstance(error, ModelNotFoundError | ModuleNotFoundError | _DeviceMissingError)


def _one_line(error: BaseException) -> str:
    first = " ".join(str(error).split()) or type(error).__name__
    return f"{first[:600]} (--debug shows where)" if len(first) < 3 or isinstance(error, KeyError) else first[:600]


def _end(line: str, code: int) -> NoReturn:
    print(f"fastaniso: {line}", file=sys.stderr)
    raise typer.Exit(code)
