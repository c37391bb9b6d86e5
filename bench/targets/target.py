"""What a target is, and how to find its figure among rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.harness import OURS, Row

MB = 1e6 / 2**20
"""In MiB."""

Measure = Callable[[Sequence[Row]], float | None]


@dataclass(frozen=True)
class Target:
    """``measure`` finds the figure among rows of one machine and instruction set, None if it was not measured."""

    name: str
    bound: float
    measure: Measure
    at_least: bool = True
    form: str = "{:.2f}"

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return ("≥ " if self.at_least else "≤ ") + self.form.format(self.bound)

    def judge(self, rows: Sequence[Row], prefix: str = "") -> Verdict:
        """On rows of one run."""
        value = self.measure(rows)
        if value is None:
            return Verdict(prefix + self.name, self.wanted, "", "not measured")
        reached = value >= self.bound if self.at_least else value <= self.bound
        return Verdict(prefix + self.name, self.wanted, self.form.format(value), "reached" if reached else "missed")


@dataclass(frozen=True)
class Verdict:
    target: str
    wanted: str
    measured: str
    verdict: str


def find(
    rows: Sequence[Row], *, size: tuple[int, int], threads: int | None = 2, kind: str = "drifted", **words: str
) -> list[Row]:
    """The rows of one size whose columns are ``words``."""
    return [
        row
        for row in rows
        if (row.n, row.d) == size
        and row.threads == threads
        and row.input == kind
        and all(getattr(row, name) == word for name, word in words.items())
    ]


def column(name: str, worst: Callable[..., float] = min, **where: object) -> Measure:
    """The worst of a column over the rows found."""

    def measure(rows: Sequence[Row]) -> float | None:
        values = [getattr(row, name) for row in find(rows, **where)]  # type: ignore[arg-type]
        return worst(values) if values and None not in values else None

    return measure


def share(op: str, size: tuple[int, int], dtype: str, threads: int, contender: str = OURS) -> Measure:
    """Share of the limit."""
    return column("share_of_limit", op=op, contender=contender, size=size, dtype=dtype, threads=threads)


def ratio(op: str, size: tuple[int, int], contender: str, threads: int = 2) -> Measure:
    """How many times fastaniso's time a contender takes."""
    return column("ratio_to_ours", op=op, contender=contender, size=size, dtype="float32", threads=threads)


def least(*measures: Measure) -> Measure:
    """The least of figures of which not all need have been measured."""

    def measure(rows: Sequence[Row]) -> float | None:
        values = [value for value in (each(rows) for each in measures) if value is not None]
        return min(values) if values else None

    return measure
