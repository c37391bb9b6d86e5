"""How far a scan or a measurement is, and the bar that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """``rows`` measured so far, ``steps`` batches or blocks, ``share`` of the whole (None if unknown), seconds."""

    rows: int
    steps: int
    share: float | None
    seconds: float


Report = Callable[[Progress], None]


class Meter:
    """Counts rows and bytes and tells ``report`` after each step."""

    def __init__(self, report: Report | None, *, total_bytes: int | None, total_rows: int | None = None) -> None:
        """Start the clock; of two totals, the one reached first is the end."""
        self._report = report
        self._total_bytes = total_bytes
        self._total_rows = total_rows
        self._began = time.perf_counter()
        self._bytes = 0.0
        self.rows = 0
        self.steps = 0

    @property
    def seconds(self) -> float:
        """Since the meter was made."""
        return time.perf_counter() - self._began

    def step(self, rows: int, bytes_read: float) -> None:
        """Count one batch or block."""
        self.rows += rows
        self.steps += 1
        self._bytes += bytes_read
        if self._report is not None:
            shares = [
                done / total
                for done, total in ((self._bytes, self._total_bytes), (self.rows, self._total_rows))
                if total
            ]
            # The text ends or the limit is reached, whichever comes first.
            share = min(1.0, max(shares)) if shares else None
            self._report(Progress(self.rows, self.steps, share, self.seconds))


@contextmanager
def reporter(progress: Report | bool | None, unit: str) -> Iterator[Report | None]:
    """The caller's function, a bar on stderr for True, or nothing."""
    if progress is True:
        with bar(unit) as report:
            yield report
    elif progress:
        yield progress
    else:
        yield None


@contextmanager
def bar(unit: str) -> Iterator[Report]:
    """A live bar on stderr: share done, rows, rows a second, time left."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} " + unit),
        TextColumn("{task.fields[speed]:,.0f} " + unit + "/s"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as live:
        task = live.add_task("measuring", total=None, rows=0, speed=0.0)

        def report(progress: Progress) -> None:
            live.update(
                task,
                total=None if progress.share is None else 1.0,
                completed=progress.share or 0.0,
                rows=progress.rows,
                speed=progress.rows / max(progress.seconds, 1e-9),
            )

        yield report
