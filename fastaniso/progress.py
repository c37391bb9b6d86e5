"""How far a long run is, and the bar that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a ``stage`` of the work is.

    ``done`` of ``unit`` ("tokens", "rows" or "pairs") in ``steps`` batches, blocks or tiles; ``share`` of the whole
    (None if unknown); ``seconds`` since it began and ``rate``, units a second since then.
    """

    stage: str
    done: int
    unit: str
    steps: int
    share: float | None
    seconds: float
    rate: float


Report = Callable[[Progress], None]


class Meter:
    """Counts units of work and bytes, and tells ``report`` after each step."""

    def __init__(
        self,
        report: Report | None,
        stage: str,
        unit: str,
        *,
        total: int | None = None,
        total_bytes: int | None = None,
        done: int = 0,
    ) -> None:
        """Start the clock; of two totals, the one reached first is the end. ``done`` was done in an earlier run."""
        self._report = report
        self._stage = stage
        self._unit = unit
        self._total = total
        self._total_bytes = total_bytes
        self._before = done
        self._began = time.perf_counter()
        self._bytes = 0.0
        self.done = done
        self.steps = 0

    @property
    def seconds(self) -> float:
        """Since the meter was made."""
        return time.perf_counter() - self._began

    def step(self, units: int, bytes_read: float = 0.0) -> None:
        """Count one batch, block or tile."""
        self.done += units
        self.steps += 1
        self._bytes += bytes_read
        if self._report is not None:
            totals = ((self._bytes, self._total_bytes), (self.done, self._total))
            shares = [done / total for done, total in totals if total]
            # The text ends or the limit is reached, whichever comes first.
            share = min(1.0, max(shares)) if shares else None
            seconds = self.seconds
            rate = (self.done - self._before) / max(seconds, 1e-9)
            self._report(Progress(self._stage, self.done, self._unit, self.steps, share, seconds, rate))


@contextmanager
def reporter(progress: Report | bool | None) -> Iterator[Report | None]:
    """The caller's function, a bar on stderr for True, or nothing."""
    if progress is True:
        with bar() as report:
            yield report
    elif progress:
        yield progress
    else:
        yield None


@contextmanager
def bar() -> Iterator[Report]:
    """A live bar on stderr: the stage, share done, units, units a second, time left."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[done]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    # What is printed to stdout meanwhile is data, and stays there.
    with RichProgress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as live:
        task = live.add_task("measuring", total=None, done="", rate="")
        stage = "measuring"

        def report(progress: Progress) -> None:
            nonlocal stage
            if progress.stage != stage:
                stage = progress.stage
                live.reset(task, description=stage, total=None)
            live.update(
                task,
                total=None if progress.share is None else 1.0,
                completed=progress.share or 0.0,
                done=f"{_short(progress.done)} {progress.unit}",
                rate=f"{_short(progress.rate)} {progress.unit}/s",
            )

        yield report


def _short(count: float) -> str:
    """Whole numbers up to a million, then three digits and a power of ten: pairs go far beyond."""
    return f"{count:,.0f}" if count < 1e6 else f"{count:.2e}"
