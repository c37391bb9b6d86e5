"""Rows of results, and timing that hits all contenders alike."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bench import machine as machines

if TYPE_CHECKING:
    from rich.console import Console

OURS = "fastaniso"
"""The contender that every ``ratio_to_ours`` is relative to."""

WIDTH = 176
"""Columns of the tables printed: a row on one line, also where the output is a file."""

LONG = 1.0
"""Seconds from which a call's warm-up is as good as any other call."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Row:
    """One contender on one input; None where a figure does not apply or was not taken.

    ``input``          the kind of rows, see ``bench.inputs``.
    ``gb_per_s``       bytes of the rows over p50: as if they were read once.
    ``tflop_per_s``    operations of the op over p50: a symmetric product counts its triangle.
    ``share_of_limit`` time of the limit measured in the same rounds over p50; 1 is as fast as the machine goes.
    ``ratio_to_ours``  p50 over fastaniso's p50 in the same rounds.
    ``peak_mib``       memory of one call beside the resident input.
    ``error``          against float64 on the same rounded rows: relative, absolute where ``input`` is isotropic.
    """

    op: str
    contender: str
    backend: str
    isa: str
    n: int
    d: int
    dtype: str
    threads: int | None
    input: str = ""
    p20_ms: float | None = None
    p50_ms: float | None = None
    p80_ms: float | None = None
    gb_per_s: float | None = None
    tflop_per_s: float | None = None
    share_of_limit: float | None = None
    ratio_to_ours: float | None = None
    peak_mib: float | None = None
    error: float | None = None
    machine: str = dataclasses.field(default_factory=machines.cpu_name)
    versions: str = dataclasses.field(default_factory=machines.versions)
    commit: str = dataclasses.field(default_factory=machines.commit)
    date: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
_INTS = ("n", "d", "threads")
_WORDS = ("op", "contender", "backend", "isa", "dtype", "input", "machine", "versions", "commit", "date")


def append(rows: Iterable[Row], folder: Path) -> list[Path]:
    """Add rows to ``folder/<machine>.csv``: what is there stays, and a file of other columns is refused."""
    by_file: dict[Path, list[Row]] = {}
    for row in rows:
        by_file.setdefault(folder / machines.file_name(row.machine), []).append(row)
    for path, some in by_file.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _check_header(path)
        with path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if file.tell() == 0:
                writer.writerow(COLUMNS)
            writer.writerows([_cell(getattr(row, name)) for name in COLUMNS] for row in some)
    return list(by_file)


def read(path: Path) -> list[Row]:
    """The rows of a file that ``append`` wrote."""
    _check_header(path)
    with path.open(newline="") as file:
        return [Row(**{name: _value(name, cell) for name, cell in row.items()}) for row in csv.DictReader(file)]


def latest(rows: Sequence[Row]) -> list[Row]:
    """Of every op the rows of the commit that it was last measured at; of rows taken twice there, the later."""
    commits = {row.op: row.commit for row in rows}
    kept = {
        (row.op, row.contender, row.isa, row.n, row.d, row.dtype, row.threads, row.input): row
        for row in rows
        if row.commit == commits[row.op]
    }
    return list(kept.values())


def _check_header(path: Path) -> None:
    with path.open(newline="") as file:
        header = tuple(next(csv.reader(file), ()))
    if header != COLUMNS:
        raise ValueError(f"{path}: expected the columns {', '.join(COLUMNS)}, got {', '.join(header)}; move it aside")


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _value(name: str, cell: str) -> Any:
    if name in _WORDS:
        return cell
    return None if cell == "" else int(cell) if name in _INTS else float(cell)


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the 20th, 50th and 80th percentile."""

    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """From single calls; a percentile is a call that happened, never a mean of two."""
        ordered = sorted(seconds)
        return cls(*(ordered[round(share * (len(ordered) - 1))] for share in (0.2, 0.5, 0.8)))

    def columns(self) -> dict[str, Any]:
        """As a row's columns."""
        return {"p20_ms": 1e3 * self.p20, "p50_ms": 1e3 * self.p50, "p80_ms": 1e3 * self.p80}


def interleave(
    calls: dict[Key, Callable[[], object]],
    *,
    before: Callable[[Key], None] = lambda key: None,
    seconds: float = 10.0,
    rounds: tuple[int, int] = (5, 40),
    settle: float = 0.1,
    seldom: Collection[Key] = (),
) -> dict[Key, Timing]:
    """Time all calls in one run, in turns, so that a busy moment of the machine hits all of them.

    A round gives each call a turn: ``before(key)`` (such as setting the threads), a pause in which threads of the last
    turn stop spinning (OpenBLAS's go on for tens of milliseconds), one call that is not timed if it is short, and some
    that are: more of a short one than of a long one. There are as many rounds as ``seconds`` allow between the two of
    ``rounds``; the calls of ``seldom`` take their turn in every third.
    """
    once: dict[Key, float] = {}
    for key, call in calls.items():
        before(key)
        once[key] = _seconds(call)  # warm: pages touched, code compiled
        if once[key] < LONG:
            once[key] = _seconds(call)
    repeats = {key: max(1, min(5, int(0.1 / max(once[key], 1e-9)))) for key in calls}
    turn = sum(
        (settle + once[key] * (repeats[key] + (repeats[key] > 1))) / (3 if key in seldom else 1) for key in calls
    )
    taken: dict[Key, list[float]] = {key: [] for key in calls}
    for place in range(max(rounds[0], min(rounds[1], int(seconds / turn)))):
        for key, call in calls.items():
            if key in seldom and place % 3:
                continue
            before(key)
            time.sleep(settle)
            if repeats[key] > 1:
                call()
            taken[key] += [_seconds(call) for _ in range(repeats[key])]
    return {key: Timing.of(samples) for key, samples in taken.items()}


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def show(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print rows as one table an op."""
    # Here, so that a GPU machine without rich can write rows.
    from rich.console import Console
    from rich.table import Table

    console = console or Console(width=WIDTH)
    for op in dict.fromkeys(row.op for row in rows):
        some = [row for row in rows if row.op == op]
        table = Table(title=op, title_justify="left")
        for name in ("contender", "isa", "n", "d", "dtype", "threads", "p20 ms", "p50 ms", "p80 ms"):
            table.add_column(name, justify="left" if name in ("contender", "isa", "dtype") else "right", no_wrap=True)
        for name in ("GB/s", "TFLOP/s", "of limit", "x ours", "peak MiB", "error"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in some:
            table.add_row(*cells(row))
        console.print(table)


def cells(row: Row) -> list[str]:
    """A row as text, without what is the same for the whole run."""
    text = [row.contender, row.isa, f"{row.n:,}", str(row.d), row.dtype, _text(row.threads, "d")]
    text += [_text(value, ".4g") for value in (row.p20_ms, row.p50_ms, row.p80_ms)]
    text += [_text(row.gb_per_s, ".1f"), _text(row.tflop_per_s, ".3f"), _text(row.share_of_limit, ".2f")]
    return [*text, _text(row.ratio_to_ours, ".2f"), _text(row.peak_mib, ".1f"), _text(row.error, ".1e")]


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
