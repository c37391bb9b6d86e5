"""What a scan is of: a model and its data, opened, looked at, and found to fit each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import nn

from fastaniso.models import Anatomy, find_stacks, load_model
from fastaniso.models.masks import MaskError
from fastaniso.planning.plan import plan
from fastaniso.scanning.modalities import Modality, ModelBatch, open_modality
from fastaniso.sources import Data


@dataclass(frozen=True)
class Subject:
    """A model whose stacks were found by a pass of one item of ``first``, the batch that ``stream`` begins with."""

    name: str
    network: nn.Module
    modality: Modality
    anatomy: Anatomy
    first: ModelBatch
    stream: Iterator[ModelBatch]

    @classmethod
    def of(cls, name: str, network: nn.Module, modality: Modality) -> Subject:
        """Read the first batch, and watch one item of it."""
        stream = modality.batches()
        first = next(stream, None)
        if first is None:
            raise modality.nothing()
        return cls(name, network, modality, _anatomy(network, modality, first), first, chain([first], stream))

    @property
    def device(self) -> torch.device:
        """Where batches go: the device of the embedding, which a model spread over devices reads first."""
        return next(self.network.parameters()).device

    def placed(self, batch: ModelBatch) -> ModelBatch:
        """The batch where the model reads it."""
        return batch.to(*_place(self.network, self.modality))

    def check_memory(self, memory_limit: int | str | None, *, gram: bool, backend: str) -> None:
        """``MemoryError`` if the states of all sites would take more."""
        if memory_limit is None:
            return
        sites = len(self.anatomy.sites) - len(self.anatomy.same_as)
        widest = max(stack.dim for stack in self.anatomy.stacks)
        ids = self.first.arguments.get("input_ids")
        positions = max(stack.positions for stack in self.anatomy.stacks)
        rows = ids.numel() if ids is not None else self.first.items * positions
        one = plan(rows, widest, gram=gram, backend=backend, device=self.device, accumulate=True)
        # Every site keeps its state; working memory is one site's at a time.
        replace(one, state_bytes=sites * one.state_bytes).check(memory_limit)


def open_subject(
    model: str | os.PathLike[str] | nn.Module, source: Data, *, device: Any, dtype: Any, **options: Any
) -> tuple[str, nn.Module, Modality]:
    """The model, its name, and the data as it reads them; ``options`` are ``open_modality``'s."""
    if not isinstance(model, nn.Module):
        name, network = os.fspath(model), load_model(model, device=device, dtype=dtype)
        return name, network, open_modality(source, network, name, **options)
    if device is not None or dtype is not None:
        raise ValueError("device, dtype: a model given as a module is used as it is; convert it with model.to(...)")
    name = getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__
    return name, model, open_modality(source, model, None, **options)


def _anatomy(network: nn.Module, modality: Modality, batch: ModelBatch) -> Anatomy:
    """The stacks whose positions have a mask."""
    one = modality.first(batch).to(*_place(network, modality))
    anatomy = find_stacks(network, lambda: network(**one.arguments))
    unfit = {}
    for stack in anatomy.stacks:
        try:
            one.mask(stack, (stack.shape[0], stack.positions))
        except MaskError as reason:
            unfit[stack] = str(reason)
    if len(unfit) == len(anatomy.stacks):
        said = "; ".join(f"{stack.path} {reason}" for stack, reason in unfit.items())
        raise ValueError(
            f"model: found no stack of blocks in {type(network).__name__} that a mask fits: {said}; give "
            "batches with a mask of its positions"
        )
    return anatomy.without(unfit)


def _place(network: nn.Module, modality: Modality) -> tuple[torch.device, torch.dtype | None]:
    """Where a batch goes, and what its floating-point tensors become: the caller's own stay as they are."""
    parameter = next(network.parameters())
    return parameter.device, parameter.dtype if modality.follows_dtype else None
