"""The shape of an experiment: it measures once, and what it says of its measurements is computed from them alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastaniso.paper.claims import Claim, Finding
from fastaniso.paper.options import Options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Measured = Mapping[str, Any]
"""Plain JSON: what was measured, on which models and data, and under "skipped" what could not be, with the reason."""


@dataclass(frozen=True)
class Table:
    """Rows of words and numbers under a heading for each column; numbers are shown with three decimals."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its file, and a caption that says what is to be seen, on which models and data."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Experiment:
    """One experiment of the paper.

    ``measure`` is the only part that takes time or reads anything; ``judge``, ``tables`` and ``draw`` are pure, so that
    a run is told again from its JSON. ``setting`` says, of the measurements, what was done on what.
    """

    name: str
    title: str
    question: str
    claims: tuple[Claim, ...]
    measure: Callable[[Options], dict[str, Any]]
    setting: Callable[[Measured], str]
    judge: Callable[[Measured], Sequence[Finding]]
    tables: Callable[[Measured], Sequence[Table]]
    draw: Callable[[Measured], Sequence[Picture]]
