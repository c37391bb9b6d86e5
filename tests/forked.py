"""Ranks of a process group as forks of the test, so that many of them take seconds."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def start(size: int, folder: Path, body: Callable[[int], Any]) -> list[int]:
    """Processes that write what ``body(rank)`` gives, or the error it raised, to ``folder``; their ids."""
    folder.mkdir(parents=True)
    pids = []
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            try:
                _be(rank, size, folder, body)
            finally:
                os._exit(0)
        pids.append(pid)
    return pids


def _be(rank: int, size: int, folder: Path, body: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    try:
        found: Any = {"value": body(rank)}
    except BaseException as error:
        found = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    written = folder / f"{rank}.part"
    written.write_text(json.dumps(found))
    written.rename(folder / f"{rank}.json")


def told(folder: Path, size: int) -> list[Any]:
    """What each rank has written; None of one that was killed before."""
    files = [folder / f"{rank}.json" for rank in range(size)]
    return [json.loads(file.read_text()) if file.is_file() else None for file in files]


def on_ranks(size: int, folder: Path, body: Callable[[int], Any]) -> list[Any]:
    """What each rank's ``body`` gives."""
    for pid in start(size, folder, body):
        assert os.waitpid(pid, 0)[1] == 0
    found = told(folder, size)
    assert all("value" in each for each in found), "\n".join(each.get("trace", "") for each in found)
    return [each["value"] for each in found]
