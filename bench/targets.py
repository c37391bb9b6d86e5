"""The project's targets, each with what was measured for it and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import gram, moments, scan, small
from bench.harness import OURS, Row
from fastaniso.ops import cpu

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


@dataclass(frozen=True)
class Verdict:
    target: str
    wanted: str
    measured: str
    verdict: str


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """All targets of the CPU on the rows of one run; of a further instruction set, its shares of the limits."""
    isas = list(dict.fromkeys(row.isa for row in rows))
    verdicts = []
    for place, isa in enumerate(isas or [cpu.isa()]):
        some = [row for row in rows if row.isa == isa]
        for target in SHARES if place else (*SHARES, *OTHERS):
            verdicts.append(_verdict(target, some, f"{isa}: "))
    return verdicts


def judge_gpu(rows: Sequence[Row]) -> list[Verdict]:
    """The targets of the GPU on rows of one GPU."""
    return [_verdict(target, rows, "") for target in GPU]


def show_verdicts(verdicts: Iterable[Verdict], console: Console) -> None:
    """Print them as a table."""
    colours = {"reached": "green", "missed": "red", "not measured": "dim"}
    table = Table(title="targets", title_justify="left")
    for name in ("target", "wanted", "measured", "verdict"):
        table.add_column(name)
    for v in verdicts:
        table.add_row(v.target, v.wanted, v.measured, f"[{colours[v.verdict]}]{v.verdict}[/]")
    console.print(table)


def _verdict(target: Target, rows: Sequence[Row], prefix: str) -> Verdict:
    wanted = ("≥ " if target.at_least else "≤ ") + target.form.format(target.bound)
    value = target.measure(rows)
    if value is None:
        return Verdict(prefix + target.name, wanted, "", "not measured")
    reached = value >= target.bound if target.at_least else value <= target.bound
    return Verdict(prefix + target.name, wanted, target.form.format(value), "reached" if reached else "missed")


def _find(
    rows: Sequence[Row], *, size: tuple[int, int], threads: int | None = 2, kind: str = "drifted", **words: str
) -> list[Row]:
    return [
        row
        for row in rows
        if (row.n, row.d) == size
        and row.threads == threads
        and row.input == kind
        and all(getattr(row, name) == word for name, word in words.items())
    ]


def _column(name: str, worst: Callable[..., float] = min, **where: object) -> Measure:
    """The worst of a column over the rows found."""

    def measure(rows: Sequence[Row]) -> float | None:
        values = [getattr(row, name) for row in _find(rows, **where)]  # type: ignore[arg-type]
        return worst(values) if values and None not in values else None

    return measure


def _share(op: str, size: tuple[int, int], dtype: str, threads: int) -> Measure:
    return _column("share_of_limit", op=op, contender=OURS, size=size, dtype=dtype, threads=threads)


def _ratio(op: str, size: tuple[int, int], contender: str, threads: int = 2) -> Measure:
    return _column("ratio_to_ours", op=op, contender=contender, size=size, dtype="float32", threads=threads)


def _scaling(rows: Sequence[Row]) -> float | None:
    one, two = (
        _find(rows, op="moments", contender=OURS, size=moments.SCALING, dtype="float32", threads=t) for t in (1, 2)
    )
    return one[0].p50_ms / two[0].p50_ms if one and two and one[0].p50_ms and two[0].p50_ms else None


def _full_matrix(rows: Sequence[Row]) -> float | None:
    ratios = [_ratio("moments", moments.FULL_MATRIX, f"{name}_full_matrix")(rows) for name in ("torch", "torchmetrics")]
    return min(r for r in ratios if r is not None) if any(r is not None for r in ratios) else None


def _latency_us(rows: Sequence[Row]) -> float | None:
    ours = [row.p50_ms for row in rows if row.op == "small" and row.contender.startswith(OURS) and row.p50_ms]
    return 1e3 * max(ours) if len(ours) == 2 * len(small.SHAPES) else None


def _import_ms(rows: Sequence[Row]) -> float | None:
    return next((row.p50_ms for row in rows if row.contender == small.IMPORT), None)


def _gram_memory_over(rows: Sequence[Row]) -> float | None:
    """MiB beyond 8d², packed rows (up to 64 columns more, on whole 2 MiB pages) and 2 MB, at the worst size."""
    over = []
    for row in rows:
        if (row.op, row.contender) == ("gram", OURS) and row.peak_mib is not None and row.n >= cpu.GRAM_ROWS:
            packed = -(-4 * cpu.GRAM_ROWS * (row.d + 64) // 2**21) * 2
            over.append(row.peak_mib - 8 * row.d**2 / 2**20 - packed - 2 * MB)
    return max(over) if over else None


def _scan_cost(contender: str, base: str) -> Measure:
    def measure(rows: Sequence[Row]) -> float | None:
        times = {row.contender: row.p50_ms for row in rows if row.op == "scan" and row.n > 0.9 * scan.TOKENS}
        ours, bare = times.get(contender), times.get(base)
        return 100 * (ours / bare - 1) if ours and bare else None

    return measure


_LARGE, _MAIN = moments.LARGE, gram.MAIN
SHARES = (
    Target("moments, share of the read bandwidth, float32", 0.95, _share("moments", _LARGE, "float32", 2)),
    Target("moments, share of the read bandwidth, bfloat16", 0.85, _share("moments", _LARGE, "bfloat16", 2)),
    Target("moments, share of the read bandwidth, float16", 0.80, _share("moments", _LARGE, "float16", 2)),
    Target("gram, share of half the sgemm time, one thread", 0.86, _share("gram", _MAIN, "float32", 1)),
    Target("gram, share of half the sgemm time, two threads", 0.80, _share("gram", _MAIN, "float32", 2)),
    Target("gram, times ssyrk without normalisation, one thread", 1.0, _ratio("gram", _MAIN, "ssyrk", 1)),
    Target("gram, times ssyrk without normalisation, two threads", 1.0, _ratio("gram", _MAIN, "ssyrk", 2)),
)
OTHERS = (
    Target("moments, times F.normalize(x).sum(0)", 10, _ratio("moments", _LARGE, "normalize_sum")),
    Target("moments, times vector_norm and matvec", 2, _ratio("moments", _LARGE, "norm_matvec")),
    Target("moments, times NumPy's einsum and matvec", 3.5, _ratio("moments", _LARGE, "einsum_matvec")),
    Target("moments, two threads over one, n = 50 000", 1.8, _scaling),
    Target("moments, times the full matrix of torch or torchmetrics, n = 20 000", 500, _full_matrix, form="{:.0f}"),
    Target(
        "moments, MiB beside the input, n = 10⁶ (every dtype)",
        2 * MB,
        _column("peak_mib", max, op="moments", contender=OURS, size=_LARGE),
        at_least=False,
    ),
    Target(
        "mean cosine, relative error, n = 10⁶ (every dtype)",
        1e-9,
        _column("error", max, op="moments", contender=OURS, size=_LARGE),
        at_least=False,
        form="{:.1e}",
    ),
    Target(
        "mean cosine, absolute error, isotropic, n = 10⁶ (every dtype)",
        1e-14,
        _column("error", max, op="moments", contender=OURS, size=_LARGE, kind="isotropic"),
        at_least=False,
        form="{:.1e}",
    ),
    Target("a small call (n·d < 10⁵), µs", 60, _latency_us, at_least=False, form="{:.0f}"),
    Target("import fastaniso after torch, ms", 50, _import_ms, at_least=False, form="{:.0f}"),
    Target("gram, MiB beyond 8d² + packed rows + 2 MB", 0, _gram_memory_over, at_least=False),
    *(
        Target(f"scan with {op}, % over {base}", bound, _scan_cost(f"scan, {op}", base), at_least=False, form="{:.1f}")
        for op, bound in (("moments", 5), ("gram", 15))
        for base in (scan.TOKENISED, scan.BARE)
    ),
)


def _gpu(column: str, contender: str, *, op: str, bytes_from: float = 0, dtypes: Sequence[str] = ()) -> Measure:
    def measure(rows: Sequence[Row]) -> float | None:
        values = [
            getattr(row, column)
            for row in rows
            if (row.op, row.contender) == (op, contender)
            and (not dtypes or row.dtype in dtypes)
            and row.n * row.d * (4 if row.dtype == "float32" else 2) >= bytes_from
        ]
        values = [value for value in values if value is not None]
        return min(values) if values else None

    return measure


_FROM_1_GB: Any = {"op": "moments", "bytes_from": 1e9}
GPU = (
    *(
        Target(
            f"moments, share of the read bandwidth from 1 GB on, {dtype}",
            0.85,
            _gpu("share_of_limit", OURS, dtypes=(dtype,), **_FROM_1_GB),
        )
        for dtype in ("float32", "bfloat16", "float16")
    ),
    Target(
        "moments, times F.normalize(x.float()).sum(0)", 3, _gpu("ratio_to_ours", "normalize_float_sum", **_FROM_1_GB)
    ),
    Target(
        "gram, share of cuBLAS's bfloat16 rate, counted on the triangle",
        0.60,
        _gpu("share_of_limit", OURS, op="gram", bytes_from=1e8, dtypes=("bfloat16",)),
    ),
)
