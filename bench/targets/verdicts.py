"""All targets on the rows of one run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from bench.harness import Row
from bench.targets import attention, calls, catalogue, gram, moments, neighbors, pairs, probe, ranks
from bench.targets.gpu import GPU
from bench.targets.target import Verdict
from fastaniso.ops import cpu

SHARES = (*moments.SHARES, *gram.SHARES, *pairs.SHARES, *neighbors.SHARES, *attention.SHARES)
OTHERS = (
    *moments.OTHERS,
    *gram.OTHERS,
    *pairs.OTHERS,
    *neighbors.OTHERS,
    *attention.OTHERS,
    *catalogue.OTHERS,
    *ranks.OTHERS,
    *probe.OTHERS,
    *calls.OTHERS,
)


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """All targets of the CPU on the rows of one run; of a further instruction set, its shares of the limits."""
    isas = list(dict.fromkeys(row.isa for row in rows))
    verdicts = []
    for place, isa in enumerate(isas or [cpu.isa()]):
        some = [row for row in rows if row.isa == isa]
        for target in SHARES if place else (*SHARES, *OTHERS):
            verdicts.append(target.judge(some, f"{isa}: "))
    return verdicts


def judge_gpu(rows: Sequence[Row]) -> list[Verdict]:
    """The targets of the GPU on rows of one GPU."""
    return [target.judge(rows) for target in GPU]


def show_verdicts(verdicts: Iterable[Verdict], console: Console) -> None:
    """Print them as a table, if there are any."""
    verdicts = list(verdicts)
    if not verdicts:
        return
    colours = {"reached": "green", "missed": "red", "not measured": "dim"}
    table = Table(title="targets", title_justify="left")
    for name in ("target", "wanted", "measured", "verdict"):
        table.add_column(name)
    for v in verdicts:
        table.add_row(v.target, v.wanted, v.measured, f"[{colours[v.verdict]}]{v.verdict}[/]")
    console.print(table)
