"""`python -m bench [OP|all|report]`: run benchmarks, append their rows, judge the targets, write what is on record."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from bench import (
    attention,
    catalogue,
    gram,
    moments,
    neighbors,
    pairs,
    picture,
    probe,
    ranks,
    scaling,
    scan,
    small,
    stored,
)
from bench.harness import WIDTH, Row, append, latest, read, show
from bench.machine import cpu_name, environment_for, file_name
from bench.options import Options
from bench.report import write_report
from bench.targets import judge, show_verdicts
from fastaniso.ops import cpu

BENCHMARKS = {
    "moments": moments.run,
    "gram": gram.run,
    "pairs": pairs.run,
    "neighbors": neighbors.run,
    "attention": attention.run,
    "catalogue": catalogue.run,
    "scaling": scaling.run,
    "ranks": ranks.run,
    "stored": stored.run,
    "small": small.run,
    "scan": scan.run,
    "probe": probe.run,
}
ROOT = Path(__file__).parents[1]


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if (given.report or given.plot) and (given.quick or given.dry):
        print("--report, --plot: what they show is on record, without --quick or --dry", file=sys.stderr)
        return 2
    if given.what == "report" and not (given.report or given.plot):
        print("report: say where to, with --report or --plot", file=sys.stderr)
        return 2
    if given.rows_to:
        options = Options(given.threads, given.quick, given.only_ours)
        given.rows_to.write_text(json.dumps([dataclasses.asdict(r) for r in BENCHMARKS[given.what](options)]))
        return 0

    console = Console(width=WIDTH)
    rows: list[Row] = []
    for place, isa in enumerate(given.isa[:1] if given.quick else given.isa):
        for what in _asked(given.what):
            # With a further instruction set only its shares of the limits are of interest.
            if place and (
                what in ("scaling", "catalogue", "ranks", "stored", "probe")
                or (what in ("scan", "small") and given.what == "all")
            ):
                continue
            some = _in_own_process(what, isa, given, only_ours=place > 0)
            show(some, console)
            rows += some
    if not given.dry:
        for path in append(rows, given.out):
            console.print(f"appended to {path}")
    verdicts = judge(rows)
    show_verdicts(verdicts if given.what == "all" else [v for v in verdicts if v.measured], console)
    if given.plot or given.report:
        rows = latest(read(given.out / file_name(cpu_name())))
    if given.plot:
        picture.draw(rows, given.plot)
        console.print(f"wrote {given.plot}")
    if given.report:
        write_report(given.report, rows, judge(rows), given.out, given.plot)
        console.print(f"wrote {given.report}")
    return 0


def _asked(what: str) -> tuple[str, ...]:
    return tuple(BENCHMARKS) if what == "all" else () if what == "report" else (what,)


def _in_own_process(what: str, isa: str, given: argparse.Namespace, *, only_ours: bool) -> list[Row]:
    """A process of its own for each, because libraries choose their instruction set once, when they are loaded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "bench", what, "--threads", ",".join(map(str, given.threads))]
        command += ["--rows-to", str(path)] + ["--quick"] * given.quick + ["--only-ours"] * only_ours
        subprocess.run(command, cwd=ROOT, env=environment_for(isa), check=True)
        return [Row(**row) for row in json.loads(path.read_text())]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=[*BENCHMARKS, "all", "report"])
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: that it runs, not how fast")
    parser.add_argument("--threads", type=_threads, default=_default_threads(), help="such as 1,2")
    parser.add_argument("--isa", type=_isas, default=_default_isas(), help=f"of {', '.join(cpu.available_isas())}")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", help="folder of <machine>.csv")
    parser.add_argument("--dry", action="store_true", help="append nothing")
    parser.add_argument("--report", type=Path, help="write the report of what is on record, such as docs/benchmarks.md")
    parser.add_argument("--plot", type=Path, help="draw `scaling` as it is on record: a .png")
    parser.add_argument("--rows-to", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only-ours", action="store_true", help="fastaniso and the limits, no baselines")
    return parser


def _threads(text: str) -> tuple[int, ...]:
    try:
        threads = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected numbers such as 1,2, got {text!r}") from error
    if threads[0] < 1:
        raise argparse.ArgumentTypeError(f"expected at least one thread, got {text!r}")
    return threads


def _isas(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in cpu.available_isas()]:
        raise argparse.ArgumentTypeError(
            f"expected of {', '.join(cpu.available_isas())} (what this CPU can run), got {', '.join(unknown)}"
        )
    return names


def _default_threads() -> tuple[int, ...]:
    """One and two, as the targets are stated."""
    return (1, 2) if torch.get_num_threads() > 1 else (1,)


def _default_isas() -> tuple[str, ...]:
    """The best of this CPU and, below it, AVX2: what most machines have."""
    best, *others = cpu.available_isas()
    return (best, "avx2") if "avx2" in others else (best,)


if __name__ == "__main__":
    sys.exit(main())
