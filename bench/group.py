"""A process for each of several ranks, joined by gloo, that call one function of a benchmark.

`python -m bench.group MODULE FUNCTION RANKS RANK FOLDER` is one of them: one thread, arguments and what it returns in
files of the folder.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from bench.machine import use_threads


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def on_ranks(function: Callable[..., Any], ranks: int, **arguments: Any) -> list[Any]:
    """What ``function(rank, **arguments)`` gives on each rank, in order; both ways as JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "arguments.json").write_text(json.dumps(arguments))
        command = [sys.executable, "-m", "bench.group", function.__module__, function.__name__, str(ranks)]
        processes = [subprocess.Popen([*command, str(rank), name]) for rank in range(ranks)]
        try:
            while any(process.poll() is None for process in processes):
                if any(process.poll() for process in processes):
                    break
                time.sleep(0.05)
        finally:
            # Who waits for a rank that has failed would wait for long.
            for process in processes:
                process.kill()
        ends = [process.wait() for process in processes]
        if any(ends):
            raise RuntimeError(f"{function.__module__}: a rank failed")
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


def main() -> None:
    module, function, ranks, rank, name = sys.argv[1:]
    folder = Path(name)
    use_threads(1)
    store = dist.FileStore(str(folder / "store"), int(ranks))
    dist.init_process_group("gloo", store=store, rank=int(rank), world_size=int(ranks))
    arguments = json.loads((folder / "arguments.json").read_text())
    found = getattr(importlib.import_module(module), function)(int(rank), **arguments)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
