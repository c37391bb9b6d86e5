"""Ranks of a process group as forks of the test, so that many of them take seconds."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def start(size: int, folder: Path, body: Callable[[int], Any]) -> list[int]:
    """Processes that write what ``body(rank)`` gives, or the error it raised, to ``folder``; their ids."""
    folder.mkdir(parents=True)
    pids, meeting = [], _store(0, keeps=True)
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            try:
                _be(rank, size, meeting.port, folder, body)
            finally:
                os._exit(0)
        pids.append(pid)
    _stores[folder] = meeting
    return pids


_stores: dict[Path, Any] = {}
"""Where ranks meet: with the test, as with the agent of torchrun, so that it outlives a rank that is killed."""


def _store(port: int, *, keeps: bool) -> Any:
    return dist.TCPStore("127.0.0.1", port, is_master=keeps, wait_for_workers=False, timeout=timedelta(minutes=2))


def _be(rank: int, size: int, port: int, folder: Path, body: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)  # threads of the test's own process are not there in a fork
    signal.alarm(300)  # a rank that hangs fails its test
    dist.init_process_group("gloo", store=_store(port, keeps=False), rank=rank, world_size=size)
    (folder / f"{rank}.joined").touch()
    try:
        found: Any = {"value": body(rank)}
    except BaseException as error:
        found = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    written = folder / f"{rank}.part"
    written.write_text(json.dumps(found))
    written.rename(folder / f"{rank}.json")


def joined(folder: Path, size: int) -> bool:
    """Whether all ranks have met."""
    return all((folder / f"{rank}.joined").exists() for rank in range(size))


def told(folder: Path, size: int) -> list[Any]:
    """What each rank has written; None of one that was killed before."""
    files = [folder / f"{rank}.json" for rank in range(size)]
    return [json.loads(file.read_text()) if file.is_file() else None for file in files]


def finish(pids: list[int], folder: Path) -> list[int]:
    """Wait for all; how they ended."""
    ends = [os.waitpid(pid, 0)[1] for pid in pids]
    del _stores[folder]
    return ends


def on_ranks(size: int, folder: Path, body: Callable[[int], Any]) -> list[Any]:
    """What each rank's ``body`` gives."""
    finish(start(size, folder, body), folder)
    found = told(folder, size)
    assert all("value" in each for each in found), "\n".join(each.get("trace", "") for each in found)
    return [each["value"] for each in found]
