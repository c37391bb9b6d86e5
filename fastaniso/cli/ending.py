"""How a command ends: with its result, or with one line on stderr and an exit code that scripts can rely on."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from fastaniso.cli.machine import DeviceMissingError

if TYPE_CHECKING:
    from fastaniso.progress import Progress, Report
    from fastaniso.scanning import Checkpoint, MeasureResult, ScanInterrupted, ScanResult, ScanStoppedError

FAILED, MISSING, BEYOND, INTERRUPTED = 1, 3, 4, 130


@contextmanager
def reported(debug: bool) -> Iterator[list[Progress]]:
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
def progress(quiet: bool, last: list[Progress]) -> Iterator[Report]:
    """A bar; it is gone before anything else is printed."""
    from fastaniso.progress import bar

    with nullcontext() if quiet else bar() as show:

        def report(told: Progress) -> None:
            last[:] = [told]
            if show is not None:
                show(told)

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


def keep_early(stopped: ScanInterrupted | ScanStoppedError, out: Path | None) -> NoReturn:
    """End a scan that stopped early: what was measured is written where a folder was named for it."""
    from fastaniso.scanning.resuming import is_kept

    interrupted = isinstance(stopped, KeyboardInterrupt)
    tokens = stopped.result.tokens
    line = f"interrupted after {tokens.kept:,} {tokens.unit}" if interrupted else _one_line(stopped)
    if out is not None:
        stopped.result.save(out, pictures=False)  # whoever pressed Ctrl-C is waiting
        done = "without these rows is" if stopped.result.complete else "until then, marked as not complete, is"
        line += f"; what was measured {done} under {out}"
        if is_kept(out):
            line += ", and the same command goes on"
    else:
        line += "; nothing was written"
    _end(line, INTERRUPTED if interrupted else FAILED)


@contextmanager
def kept_under(out: Path | None) -> Iterator[None]:
    """Of an interruption while a scan begins, or while its result is written: says what is kept, if anything is."""
    from fastaniso.scanning import ScanInterrupted
    from fastaniso.scanning.resuming import is_kept

    try:
        yield
    except KeyboardInterrupt as stop:
        if isinstance(stop, ScanInterrupted) or out is None or not is_kept(out):
            raise
        _end(f"interrupted; what was measured is kept under {out}, and the same command goes on", INTERRUPTED)


def deliver(
    result: ScanResult | MeasureResult,
    out: Path | None,
    json: bool,
    *,
    draw: Callable[[Path], list[Path]] | None = None,
) -> None:
    """Write the result where it is wanted, or only ``draw`` it where the rest is there already, and print it."""
    if out is not None:
        try:
            written = (draw or result.save)(out)
        except KeyboardInterrupt:
            _end(f"interrupted while writing: what is under {out} is not complete", INTERRUPTED)
        pictures = sum(path.suffix == ".png" for path in written)
        without = "" if pictures else "; no plots: matplotlib is not installed (pip install 'fastaniso[plot]')"
        what = f"the result and {pictures} plots" if draw else f"{len(written)} files"
        print(f"wrote {what} under {out}{without}", file=sys.stderr)
    print(result.to_json(indent=2) if json else result)


def _is_missing(error: BaseException) -> bool:
    from fastaniso.models import ModelNotFoundError

    return isinstance(error, ModelNotFoundError | ModuleNotFoundError | DeviceMissingError)


def _one_line(error: BaseException) -> str:
    first = " ".join(str(error).split()) or type(error).__name__
    return f"{first[:600]} (--debug shows where)" if len(first) < 3 or isinstance(error, KeyError) else first[:600]


def _end(line: str, code: int) -> NoReturn:
    print(f"fastaniso: {line}", file=sys.stderr)
    raise typer.Exit(code)
