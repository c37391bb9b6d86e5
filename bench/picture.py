"""Time and memory over n, from rows of ``scaling``: `python -m bench.picture RESULTS.csv PICTURE.png`.

Of a file it draws the newest run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.harness import OURS, Row, read
from fastaniso.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, figure, label, styled, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = {
    OURS: (OURS, RED, "o"),
    "torch_tiles_512": ("torch, tiles of the triangle, histc", BLUE, "s"),
    "torch_chunks": ("torch, chunks of rows, histc", ORANGE, "^"),
    "torchmetrics_full_matrix": ("torchmetrics, full matrix, histc", PURPLE, "v"),
    "numpy_chunks": ("NumPy, chunks of rows, histogram", GREEN, "D"),
    "sklearn_chunks": ("scikit-learn, chunks, NumPy's histogram", "black", "P"),
    "scipy_pdist": ("SciPy, pdist, NumPy's histogram", GREY, "X"),
}
"""Words, colour and marker of each contender."""


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the picture of one run: seconds and extra memory over n, both axes logarithmic."""
    rows = [row for row in rows if row.op == "scaling"]
    if not rows:
        raise ValueError("rows: expected some of op scaling, got none; run python -m bench scaling first")
    with styled():
        drawn = figure(10, 4.6)
        seconds, memory = drawn.subplots(1, 2)
        for contender, (words, colour, marker) in LINES.items():
            some = [row for row in rows if row.contender == contender and row.p50_ms is not None]
            ours = contender == OURS
            look = {"color": colour, "marker": marker, "linewidth": 2.6 if ours else 1.4, "zorder": 3 if ours else 2}
            seconds.plot([r.n for r in some], [r.p50_ms / 1e3 for r in some if r.p50_ms], label=words, **look)
            measured = [(r.n, r.peak_mib) for r in some if r.peak_mib]
            memory.plot([n for n, _ in measured], [mib for _, mib in measured], **look)
        sizes = sorted({row.n for row in rows})
        held = [n * rows[0].d * 4 / 2**20 for n in sizes]
        memory.plot(sizes, held, color=GREY, linestyle=":", label="the rows themselves")
        for axes in (seconds, memory):
            axes.set(xscale="log", yscale="log")
            _name_sizes(axes, sizes)
        label(seconds, "Time", "rows", "seconds")
        label(memory, "Memory beside the rows", "rows", "MiB")
        drawn.legend(loc="outside lower center", ncols=3)
        title(drawn, f"Histogram of the cosines of all pairs of n rows, d = {rows[0].d}, float32", _summary(rows))
        drawn.savefig(path, dpi=150)


def _name_sizes(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xticks(sizes, [f"{n // 1000}k" if n >= 1000 else str(n) for n in sizes])
    axes.set_xticks([], minor=True)


def _summary(rows: Sequence[Row]) -> str:
    last = max((row for row in rows if row.contender == OURS), key=lambda row: row.n)
    memory = "" if last.peak_mib is None else f" and {last.peak_mib:.0f} MiB"
    took = f"{last.n * (last.n - 1) // 2:,} pairs in {(last.p50_ms or 0) / 1e3:.3g} s{memory}"
    return f"{last.machine}, {last.threads} threads, {last.isa}; fastaniso: {took}"


def newest(rows: Sequence[Row]) -> list[Row]:
    """The rows of ``scaling`` from the last time that it began with its smallest n."""
    rows = [row for row in rows if row.op == "scaling"]
    first = min((row.n for row in rows), default=0)
    begun = [i for i, row in enumerate(rows) if (row.contender, row.n) == (OURS, first)]
    return rows[begun[-1] :] if begun else rows


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: python -m bench.picture RESULTS.csv PICTURE.png", file=sys.stderr)
        return 2
    draw(newest(read(Path(sys.argv[1]))), Path(sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
