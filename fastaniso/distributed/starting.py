"""Join the process group that torchrun prepared, or say which ranks have not come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from fastaniso.distributed.exchange import RankError


def launched() -> bool:
    """Whether this process is one of several that torchrun, or a launcher that sets what torchrun does, has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return not launched() or os.environ["RANK"] == "0"


def own_device(device: str | None) -> str | None:
    """The GPU of the rank's number on its machine, where one of several ranks is to use "cuda" or what there is."""
    if not launched() or (device != "cuda" and (device is not None or not torch.cuda.is_available())):
        return device
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


@contextmanager
def joined(device: torch.device | str, *, seconds: float = 300.0) -> Iterator[Any]:
    """The group of all ranks, left again at the end; each rank's tensors are on ``device``.

    Raises:
        RankError: Some ranks have not started after so many ``seconds``: their numbers.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # torchrun's own agent may keep the store at this address; else the first rank does.
    keeps = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        size,
        is_master=keeps,
        timeout=timedelta(seconds=seconds),
        wait_for_workers=False,
    )
    meet(_part(store, "started"), rank, size, seconds)
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(torch.device(device))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.device(device).type == "cuda" else "gloo",
        store=_part(store, "group"),
        rank=rank,
        world_size=size,
    )
    try:
        yield dist.group.WORLD
        # Who keeps the store must not leave while others still use it.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _part(store: Any, name: str) -> Any:
    return dist.PrefixStore(f"fastaniso/{name}", store)  # type: ignore[attr-defined]


def meet(store: Any, rank: int, size: int, seconds: float) -> None:
    """Wait until all ranks have come to ``store``; ``RankError`` with the numbers of those that have not."""
    store.set(str(rank), b"here")
    everyone = [str(each) for each in range(size)]
    try:
        store.wait(everyone, timedelta(seconds=seconds))
    except RuntimeError as error:
        missing = [each for each in everyone if not store.check([each])]
        if not missing:
            return
        some = "rank " + missing[0] if len(missing) == 1 else "ranks " + ", ".join(missing)
        raise RankError(
            f"{some} of {size} did not start within {seconds:g} s; see their logs, or start anew"
        ) from error
