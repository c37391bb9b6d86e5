"""What two processes do with probes and the metric; a module of its own, because each of them imports it."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from nets import TOKENS, hooks_of, net
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

import fastaniso
from fastaniso import integrations


class Recorder:
    """A logger that keeps what it is given."""

    def __init__(self) -> None:
        self.logged: dict[int, Mapping[str, float]] = {}
        self.closed = False

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        assert step not in self.logged
        self.logged[step] = scalars

    def close(self) -> None:
        self.closed = True


def hidden_and_mask() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 10, 6, generator=generator) + 0.4
    return hidden, torch.rand(4, 10, generator=generator) > 0.3


def sharded(how: str, ids: Tensor) -> tuple[list[str], float]:
    """The sites of a network whose parameters lie on both ranks, and the mean cosine of its last block over both."""
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    model: nn.Module = net()
    blocks = model.trunk
    assert isinstance(blocks, nn.ModuleList)
    if how == "fully_shard":
        for block in (*blocks, model):
            fully_shard(block, mesh=mesh)
    else:
        for number, block in enumerate(blocks):
            blocks[number] = FullyShardedDataParallel(block, device_id=torch.device("cpu"))
        model = FullyShardedDataParallel(model, device_id=torch.device("cpu"))
    model(ids)  # puts hooks of its own on
    before = hooks_of(model)
    with fastaniso.probe(model) as probe:
        model(ids).sum().backward()
    assert hooks_of(model) == before
    return list(probe.sites), probe.results(all_ranks=True)["block.2"].mean_cosine


def of_rank(rank: int, folder: str) -> None:
    """What each of two processes does; rank 0 writes down what both find."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")  # of the output, which is not written to
    _ = integrations.Watch, integrations.Logger
    heavy = {"transformers", "lightning", "torchmetrics", "wandb", "tensorboard"}
    found: dict[str, Any] = {"imported": sorted(heavy & set(sys.modules))}
    torch.distributed.init_process_group(
        *("gloo", f"file://{folder}/store", timedelta(minutes=2)), rank=rank, world_size=2
    )
    hidden, mask = hidden_and_mask()
    metric = integrations.AnisotropyMetric(6)
    metric.update(hidden[rank::2], mask[rank::2])
    found["metric"] = {name: value.item() for name, value in metric.compute().items()}
    metric.update(hidden[rank::2])  # after compute the sums are those of the rank again
    found["rows of both"] = metric.compute()["rows"].item()

    model = net()
    parallel = nn.parallel.DistributedDataParallel(model)
    recorder = Recorder()
    watch = integrations.Watch(parallel, every=2, loggers=[recorder])
    for number in range(3):
        with watch.step(number):
            parallel(TOKENS[rank : rank + 1, : 4 + 2 * rank]).sum().backward()
    assert hooks_of(model) == 0
    found["logged"] = {step: scalars["rows/block.1"] for step, scalars in recorder.logged.items()}
    assert watch.results is not None
    found["mean"] = watch.results["block.1"].mean_cosine
    found["silent"] = list(watch.results.silent)
    found["sharded"] = [sharded(how, TOKENS[rank : rank + 1]) for how in ("fully_shard", "FullyShardedDataParallel")]
    parts: list[Any] = [None, None]
    torch.distributed.all_gather_object(parts, found)
    if rank == 0:
        (Path(folder) / "found.json").write_text(json.dumps(parts))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    if rank:
        os._exit(0)  # threads that torch leaves behind may abort the end of an interpreter
