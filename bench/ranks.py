"""All pairs over ranks: a rank's work over time × ranks, against one rank, each with one thread.

`python -m bench.ranks N D RANKS RANK STORE REPEATS` is one rank of a group; the first prints its seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch.distributed as dist

from bench import inputs
from bench.harness import OURS, Row, Timing
from bench.machine import use_threads
from bench.options import Options, row
from fastaniso import distributed

SIZES = ((8_000, 768), (16_000, 384))
QUICK = ((600, 32),)
RANKS = 2


def run(options: Options) -> list[Row]:
    """In turns: a group of one rank, a group of two; a group is as many processes."""
    out: list[Row] = []
    rounds = 1 if options.quick else 3
    for n, d in QUICK if options.quick else SIZES:
        options.say(f"ranks: all pairs of {n:,} × {d} on one rank and on {RANKS}")
        taken: dict[int, list[float]] = {1: [], RANKS: []}
        for _ in range(rounds):
            for ranks, seconds in taken.items():
                seconds += _group(n, d, ranks, 2 if options.quick else 5)
        one = Timing.of(taken[1])
        for ranks, seconds in taken.items():
            timing = Timing.of(seconds)
            # Of the limit: as if each rank worked as one that is alone, on its share of the pairs.
            out.append(
                row(
                    "ranks", f"{OURS}, {ranks} rank{'s' * (ranks > 1)}", "cpu", (n, d, "float32"), 1, timing,
                    operations=n * (n - 1) * d, limit=one.p50 / ranks, ours=one.p50,
                )
            )  # fmt: skip
    return out


def _group(n: int, d: int, ranks: int, repeats: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        command = [sys.executable, "-m", "bench.ranks", str(n), str(d), str(ranks)]
        others = [subprocess.Popen([*command, str(rank), store, str(repeats)]) for rank in range(1, ranks)]
        first = subprocess.run([*command, "0", store, str(repeats)], capture_output=True, text=True, check=True)
        if any(other.wait() for other in others):
            raise RuntimeError("ranks: a rank failed")
    seconds: list[float] = json.loads(first.stdout.splitlines()[-1])
    return seconds


def main() -> None:
    n, d, ranks, rank = map(int, sys.argv[1:5])
    store, repeats = sys.argv[5], int(sys.argv[6])
    use_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, ranks), rank=rank, world_size=ranks)
    # Uneven: the last rank has what is left over.
    own = inputs.make(n, d, "float32")[rank * (n // ranks) : n if rank == ranks - 1 else (rank + 1) * (n // ranks)]
    seconds = []
    for _ in range(repeats + 1):
        dist.barrier()
        began = time.perf_counter()
        distributed.pairs(own)
        dist.barrier()
        seconds.append(time.perf_counter() - began)
    if rank == 0:
        print(json.dumps(seconds[1:]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
