"""docs/benchmarks.md from the rows on record: of each op those of its last run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.harness import Row, cells, read
from bench.targets import GPU, Verdict, judge_gpu

_HEADER = (
    "contender", "isa", "n", "d", "dtype", "threads", "p20 ms", "p50 ms", "p80 ms", "GB/s", "TFLOP/s", "of limit",
    "× ours", "peak MiB", "error",
)  # fmt: skip
_OVER_RANKS = ("ranks", "stored")
_MEANING = {
    "read": "Plain readers of the same array, in the same rounds: the fastest is the limit of `moments`.",
    "moments": "`fastaniso.mean_cosine` and what a user would write for the same number (`bench/baselines.py`). "
    "Error: relative, on rows drifted from the origin; rows without times are isotropic and their error is absolute.",
    "sgemm": "General float32 products XᵀX: half the fastest one's time is the limit of `gram`.",
    "gram": "`fastaniso` forms the scatter of the unit rows, normalisation included; `fastaniso_raw` that of the rows "
    "as they are. `ssyrk` is OpenBLAS's, without normalisation; `numpy_mm` ends in ssyrk too. TFLOP/s count the "
    "triangle. Error: the largest of an entry over the largest entry.",
    "product": "General float32 products XXᵀ of n rows, into an array that is there: half the fastest one's time, "
    "scaled by the square of the rows, is the limit of `pairs`, `neighbors` and `two_nn`. (The product of all rows "
    "would not fit the cache, and memory would be timed.)",
    "pairs": "The histogram of all unordered pairs in 2048 bins; `fastaniso_everything` adds moments, extrema, the sum "
    "of exponentials and a threshold. TFLOP/s count the triangle. Error: the share of the pairs in a wrong bin. Rows "
    "without times tell the memory at a size at which the others would take long.",
    "neighbors": "The ten nearest other rows of each. TFLOP/s count the triangle. Error: the largest of a cosine.",
    "two_nn": "Intrinsic dimension from the two nearest rows of each; the others are given unit rows. Error: relative.",
    "attention_limit": "The product of 256 queries of one head with all keys, and one exponential for each score, in "
    "float32 into arrays that are there: the sum of both, scaled to all queries, is the limit of `attention`.",
    "attention": "`fastaniso.attention` of eight heads, n their queries together, and the same numbers in torch: 256 "
    "queries at a time, or from full maps. Error: relative, of the mean entropy and the mean largest softmax.",
    "attention_causal": "The same of causal attention; the limit is that of half the scores.",
    "isoscore": "One number from the covariance. Error: relative.",
    "describe": 'Every metric that rows alone give, `describe(metrics="all")`, and single calls of the passes that it '
    "needs: one call each, of a minute or so. Rows without times tell the memory.",
    "ranks": "`fastaniso.distributed.pairs`, and `nearest_neighbors` with k = 10, on ranks of one thread each (gloo), "
    "between barriers. The limit is one rank's time over the ranks, or over the cores where ranks share them, so `of "
    "limit` is the efficiency. `CPU time of each`: what a rank took of its core, waiting left out, against its part of "
    "one rank's, which is comparable where ranks share cores.",
    "stored": "One pass over an .npy file: the tiles of a manifest, each with its state in a file, by ranks of one "
    "thread each, and merged; and `fastaniso.measure` of the same file over HTTP. `of limit`: of a warm file the "
    "efficiency, elsewhere the share of the time in which rows were not waited for (of a file from disk by the time of "
    "a warm one).",
    "scaling": "The histogram over growing n, as far as a call takes some seconds (fastaniso: a minute or two) and "
    "memory is there; one contender after another, not in turns.",
    "small": "Single calls of `mean_cosine`.",
    "scan": "`fastaniso.scan` of all-MiniLM-L6-v2 over `examples/jargon-excerpt.txt`: it tokenises as it goes, so "
    "it is held against forward passes that do the same, and against bare ones over ready batches (the limit).",
    "probe": "Ten training steps of a Transformer of four blocks, as they are (the limit) and probed: with hooks, sums "
    "and a log.",
}


def write_report(
    path: Path, rows: Sequence[Row], verdicts: Sequence[Verdict], results: Path, picture: Path | None = None
) -> None:
    """Overwrite ``path`` with the run's rows and verdicts, those of the GPUs in ``results``, and the picture drawn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = [] if picture is None else [f"![Time and memory over n]({os.path.relpath(picture, path.parent)})", ""]
    lines = [*_head(rows), *_verdicts(verdicts), *_gpu(results), *_method(), *shown, *_tables(rows)]
    path.write_text("\n".join(lines) + "\n")


def _head(rows: Sequence[Row]) -> list[str]:
    runs: dict[tuple[str, str, str], dict[str, None]] = {}
    for row in rows:
        runs.setdefault((row.commit, row.date[:10], row.versions), {})[row.op] = None
    return [
        "# Benchmarks",
        "",
        "Written by `python -m bench report --report docs/benchmarks.md`; not edited by hand. Of each op the rows of",
        "the commit it was last measured at; all rows ever taken are in `bench/results/`.",
        "",
        f"- Machine: {rows[0].machine}",
        f"- Instruction sets: {', '.join(dict.fromkeys(row.isa for row in rows))}",
        *(f"- {', '.join(ops)}: commit {commit}, {date}; {versions}" for (commit, date, versions), ops in runs.items()),
        "",
    ]


def _verdicts(verdicts: Iterable[Verdict]) -> list[str]:
    lines = ["## Targets on the CPU", ""]
    lines += _table(
        ("target", "wanted", "measured", "verdict"), [(v.target, v.wanted, v.measured, v.verdict) for v in verdicts]
    )
    return lines


def _gpu(results: Path) -> list[str]:
    """Targets of the GPU, of each GPU that has rows."""
    recorded = [row for path in sorted(results.glob("*.csv")) for row in read(path)]
    gpus = list(dict.fromkeys(row.machine for row in recorded if row.backend == "triton"))
    lines = ["## Targets on the GPU", ""]
    if not gpus:
        lines += ["Not yet run on a GPU: the kernels are compiled and checked without one.", ""]
        return lines + _table(("target", "wanted"), [(t.name, t.wanted) for t in GPU])
    for gpu in gpus:
        latest = {(r.op, r.contender, r.n, r.d, r.dtype, r.input): r for r in recorded if r.machine == gpu}
        rows = list(latest.values())
        verdicts = judge_gpu(rows)
        lines += [f"{gpu}, {rows[-1].versions}, commit {rows[-1].commit}, {rows[-1].date[:10]}:", ""]
        lines += _table(
            ("target", "wanted", "measured", "verdict"),
            [(v.target, v.wanted, v.measured, v.verdict) for v in verdicts],
        )
    return lines


def _method() -> list[str]:
    return [
        "## How",
        "",
        "All contenders of one size and dtype are timed in one process, in turns, with the limit among them. Times are",
        "the 20th, 50th and 80th percentile of single calls; shares and ratios are of medians. With a further",
        "instruction set, torch's, MKL's and OpenBLAS's kernels are held to it as well. Peak memory is what a second",
        "call adds to a process of its own that holds the input. Errors are against float64 on the same rounded rows.",
        "",
    ]


def _tables(rows: Sequence[Row]) -> list[str]:
    lines = []
    for op in dict.fromkeys(row.op for row in rows):
        lines += [f"## {op}", "", _MEANING[op], ""]
        some = [row for row in rows if row.op == op]
        if op in _OVER_RANKS:
            lines += _table((*_HEADER, "rows/s"), [[*cells(row), _rows_a_second(row)] for row in some])
        else:
            lines += _table(_HEADER, [cells(row) for row in some])
    return lines


def _rows_a_second(row: Row) -> str:
    return f"{1e3 * row.n / row.p50_ms:,.0f}" if row.p50_ms else ""


def _table(header: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *body]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]
