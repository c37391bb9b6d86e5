"""What all pairs, and one pass, take on so many ranks: `python -m bench.scaling_model docs/scaling.md` writes it.

Each of W ranks holds m = n/W rows. It forms the pairs of its own, then of its own with ⌊W/2⌋ shards that come round the
ring, the last of them by half where W is even. A tile of a × b rows that forms p pairs takes

    tile = p·(d/R + e) + (a + b)·d·c

(R multiply-adds a second, e what a pair costs beside its products, c what a number of a row costs beside those: it is
made ready, and tiles that the diagonal cuts are multiplied whole). A shard is a message of m·d·bytes/B seconds and a
latency α. It travels while the one before is paired, so that

    T(W) = rounds·r + Σ max(tile, next message) + ⌊W/2⌋·s + bytes moved·q,    rounds = 1 + 2⌈log₂ W⌉

with r the time of a round of small messages (one that all agree in, the tree of states up and down), s that of a step
beside its kernel, and q what a byte costs the core that works. The efficiency is T(1)/(W·T(W)).

Between nodes of several ranks one shard a step leaves each node and one comes, because the ring goes through a node
before it leaves it; all ranks wait for that slowest link.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- computed: begin -->", "<!-- computed: end -->"


@dataclass(frozen=True)
class Machine:
    """The letters of the formula; seconds, bytes a second, multiply-adds a second."""

    name: str
    rate: float
    per_pair: float
    per_number: float
    itemsize: int
    link: float
    node_link: float
    latency: float
    round: float
    step: float
    per_byte: float
    ranks_of_node: int
    memory: float
    storage_of_node: float

    def link_of(self, ranks: int) -> float:
        """The slowest that a ring of so many ranks goes over."""
        return self.link if ranks <= self.ranks_of_node else self.node_link


CPU = Machine(
    "two ranks of one thread on an AMD EPYC of 2 cores",
    **{"rate": 56.5e9, "per_pair": 0.66e-9, "per_number": 1.05e-9, "itemsize": 4},
    **{"link": 1.24e9, "node_link": 1.24e9, "latency": 1e-4, "round": 1.4e-3, "step": 1.1e-3, "per_byte": 1 / 3.5e9},
    **{"ranks_of_node": 1 << 30, "memory": 12e9, "storage_of_node": 1.5e9},
)
"""Measured by `python -m bench.scaling_rates`."""

PEAK, SHARE = 989e12 / 2, 0.4
GPU = Machine(
    "H100 SXM, bfloat16",
    **{"rate": SHARE * PEAK, "per_pair": 0.0, "per_number": 6 / 3.35e12, "itemsize": 2},
    **{"link": 0.8 * 450e9, "node_link": 0.8 * 50e9, "latency": 2e-5, "round": 5e-4, "step": 1e-3, "per_byte": 0.0},
    **{"ranks_of_node": 8, "memory": 0.85 * 3.35e12, "storage_of_node": 10e9},
)
"""Assumed, from data sheets: nothing of it has been measured."""

ASSUMED = (
    ("R", f"{GPU.rate / 1e12:.0f}·10¹² multiply-adds a second: 40 % of the data sheet's 989 TFLOP/s (dense bfloat16)"),
    ("c", "a number is read and written three times at the data sheet's 3.35 TB/s of memory; e is within R"),
    ("B in a node", "360 GB/s: 80 % of NVLink's 450 GB/s each way"),
    ("B between nodes", "40 GB/s: 80 % of one 400 Gb/s port a node"),
    ("α, r, s", "20 µs a message, 0.5 ms a round, 1 ms a step; q = 0: kernels and copies do not slow each other"),
    ("reading", "10 GB/s a node from where the rows are stored"),
)


@dataclass(frozen=True)
class Measured:
    """On ``CPU``: the CPU time of one rank alone, and of each of several, which does not count waiting."""

    n: int
    d: int
    ranks: int
    alone: float
    each: float


MEASURED = (
    Measured(8_000, 768, 2, 0.468, 0.249),
    Measured(16_000, 384, 2, 0.967, 0.500),
    Measured(20_000, 768, 2, 2.896, 1.476),
    Measured(32_000, 384, 2, 3.849, 1.939),
    Measured(12_000, 384, 2, 0.544, 0.288),
    Measured(12_000, 384, 4, 0.544, 0.156),
    Measured(12_000, 384, 8, 0.544, 0.094),
)
"""Medians of `bench ranks`."""


def seconds(machine: Machine, n: float, d: int, ranks: int) -> float:
    """T(W): all pairs of n rows of d numbers."""
    rows = n / ranks
    steps = ranks // 2
    tiles = [_tile(machine, rows * (rows - 1) / 2, 2 * rows, d)]
    tiles += [_tile(machine, rows * rows, 2 * rows, d)] * ((ranks - 1) // 2)
    if ranks % 2 == 0:
        tiles.append(_tile(machine, rows * rows / 2, 1.5 * rows, d))
    size = rows * d * machine.itemsize
    message = machine.latency + size / machine.link_of(ranks)
    overlapped = sum(max(tile, message) for tile in tiles[:-1]) + tiles[-1]
    # Of the last shard one of two opposite ranks needs half.
    moved = 2 * size * (steps - (0.25 if ranks % 2 == 0 else 0)) if steps else 0
    return _rounds(ranks) * machine.round + overlapped + steps * machine.step + moved * machine.per_byte


def efficiency(machine: Machine, n: float, d: int, ranks: int) -> float:
    """Work over time × ranks: T(1)/(W·T(W))."""
    return seconds(machine, n, d, 1) / (ranks * seconds(machine, n, d, ranks))


def rows_for(machine: Machine, d: int, ranks: int, wanted: float = 0.9) -> float:
    """Rows from which ranks are so efficient."""
    low, high = 0.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if efficiency(machine, 2**middle, d, ranks) < wanted else (low, middle)
    return float(2**high)


def pass_seconds(machine: Machine, n: float, d: int, ranks: int, *, gram: bool) -> tuple[float, float]:
    """One pass over stored rows, and what of it is reading: read, summed while the next is read, merged by a tree."""
    size = n * d * machine.itemsize
    reading = size / (machine.storage_of_node * math.ceil(ranks / machine.ranks_of_node))
    summing = size / ranks / machine.memory + (n * d * d / 2 / ranks / machine.rate if gram else 0)
    state = 8 * d * (2 * d + 4 if gram else 4)
    hop = machine.round + machine.latency + state / machine.link_of(ranks)
    return max(reading, summing) + (_rounds(ranks) - 1) * hop, reading


def section() -> str:
    """What stands in the document."""
    return "\n\n".join((_formula(), _validation(), _cores(), _gpus(), _passes()))


def write(path: Path) -> None:
    """Put ``section`` between the marks in the document."""
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n\n{section()}\n\n{END}{after}", encoding="utf-8")


def _tile(machine: Machine, pairs: float, rows: float, d: int) -> float:
    return pairs * (d / machine.rate + machine.per_pair) + rows * d * machine.per_number


def _rounds(ranks: int) -> int:
    return 1 + 2 * math.ceil(math.log2(ranks))


def _formula() -> str:
    return __doc__.partition("\n\n")[2].strip()


def _validation() -> str:
    head = (
        "**Held against what was measured** on a machine of two cores (AMD EPYC), gloo, one thread a rank, float32. "
        f"R = {CPU.rate / 1e9:.1f}·10⁹ a second, e = {CPU.per_pair * 1e9:.2f} ns, c = {CPU.per_number * 1e9:.2f} ns, "
        f"1/q = {1 / CPU.per_byte / 1e9:.1f} GB/s, r = {CPU.round * 1e3:.1f} ms and s = {CPU.step * 1e3:.1f} ms were "
        "measured apart, by `python -m bench.scaling_rates`: on single kernels, an exchange without work, calls on 64 "
        "rows. Times are CPU time, of one "
        "rank alone and of each of several, because 4 and 8 ranks shared the two cores. "
        "The model meets all of them within .02 of the efficiency. "
        "Times between barriers are in [benchmarks](benchmarks.md#ranks)."
    )
    body = []
    for m in MEASURED:
        times = [f"{1e3 * taken:.0f} ms" for taken in (m.alone, m.each, seconds(CPU, m.n, m.d, m.ranks))]
        shares = [f"{share:.2f}" for share in (m.alone / m.ranks / m.each, efficiency(CPU, m.n, m.d, m.ranks))]
        body.append((f"{m.n:,} × {m.d}", str(m.ranks), *times, *shares))
    names = ("rows", "ranks", "alone", "each, measured", "each, computed", "efficiency, measured", "computed")
    return f"{head}\n\n{_table(names, body)}"


def _cores() -> str:
    head = (
        "**Computed from these measured rates**, kernel and link: more such ranks, each with a core and a link of "
        f"{CPU.link / 1e9:.1f} GB/s of its own. Between barriers, two ranks reached up to .08 less than computed."
    )
    counts = (2, 8, 64)
    body = []
    for n, d in ((2e4, 768), (1e5, 768), (1e6, 768), (1e6, 4096)):
        alone = seconds(CPU, n, d, 1)
        times = [seconds(CPU, n, d, ranks) for ranks in counts]
        cells = [f"{_time(taken)}, {alone / ranks / taken:.2f}" for ranks, taken in zip(counts, times, strict=True)]
        body.append((f"{_power(n)} × {d}", _time(alone), *cells))
    body += [
        (f"rows for 0.90, d = {d}", "", *(_power(rows_for(CPU, d, ranks)) for ranks in counts)) for d in (768, 4096)
    ]
    return f"{head}\n\n{_table(('rows', '1 rank', *(f'{ranks} ranks' for ranks in counts)), body)}"


def _gpus() -> str:
    head = (
        f"**Computed, not measured**: all pairs on {GPU.name}, 8 to a node, with these assumptions:\n\n"
        f"{_table(('', 'assumed'), ASSUMED)}"
    )
    body = []
    for n, d in ((1e6, 768), (4e6, 768), (1e7, 768), (1e6, 4096), (1e7, 4096)):
        times = [seconds(GPU, n, d, ranks) for ranks in (1, 8, 16, 32, 64)]
        cells = [_time(times[0])]
        for ranks, taken in zip((8, 16, 32, 64), times[1:], strict=True):
            cells.append(f"{_time(taken)}, {times[0] / ranks / taken:.2f}")
        body.append((f"{_power(n)} × {d}", *cells))
    body += [
        (f"rows for 0.90, d = {d}", "", *(_power(rows_for(GPU, d, ranks)) for ranks in (8, 16, 32, 64)))
        for d in (768, 4096)
    ]
    names = ("rows", "1 GPU", "8, one node", "16, two nodes", "32, four nodes", "64, eight nodes")
    tail = "Time and efficiency. Fewer rows than those of the last lines are better measured on fewer GPUs."
    return f"{head}\n\n{_table(names, body)}\n\n{tail}"


def _passes() -> str:
    head = (
        "**Computed, not measured**: one pass over stored bfloat16 rows on the same nodes, states merged by a tree, "
        "T = max(bytes/(nodes·reading), summing/W) + 2⌈log₂ W⌉·(r + α + state/B). Time, and the share that is reading."
    )
    body = []
    for n, d in ((1e8, 768), (1e8, 4096)):
        for gram in (False, True):
            cells = []
            for ranks in (1, 8, 16, 32, 64):
                taken, reading = pass_seconds(GPU, n, d, ranks, gram=gram)
                cells.append(f"{_time(taken)}, {reading / taken:.2f}")
            body.append((f"{_power(n)} × {d}, {'gram' if gram else 'moments'}", *cells))
    names = ("pass", "1 GPU", "8, one node", "16, two nodes", "32, four nodes", "64, eight nodes")
    return f"{head}\n\n{_table(names, body)}"


def _table(names: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (names, ["---"] * len(names), *body))


def _time(taken: float) -> str:
    for unit, size, most in (("ms", 1e-3, 1), ("s", 1, 600), ("min", 60, 36_000)):
        if taken < most:
            return f"{taken / size:.3g} {unit}"
    return f"{taken / 3600:.3g} h"


def _power(n: float) -> str:
    exponent = math.floor(math.log10(n))
    digits = f"{n / 10**exponent:.1f}".removesuffix(".0")
    return (
        ("" if digits == "1" else f"{digits}·")
        + "10"
        + str(exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
