"""What a modality gives to a scan: batches for the model's forward, and the mask of each state's positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastaniso.models import Stack
from fastaniso.models.masks import Mask, MaskError, all_kept
from fastaniso.sources import Skips

Masks = Callable[[str, tuple[int, int]], Mask]
"""The mask for the prefix of a stack ("encoder.") and the shape (items, positions) of its states, or ``MaskError``."""


@dataclass(frozen=True)
class ModelBatch:
    """Arguments of one forward pass over ``items`` sequences, clips or images; ``bytes`` of the source read for it."""

    arguments: Mapping[str, Any]
    items: int
    masks: Masks
    bytes: float = 0.0

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> ModelBatch:
        """The same batch on another device, its floating-point tensors in ``dtype``."""

        def moved(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            wanted = dtype if dtype is not None and value.is_floating_point() else value.dtype
            return value.to(device, wanted, non_blocking=True)

        return replace(self, arguments={name: moved(value) for name, value in self.arguments.items()})

    def mask(self, stack: Stack, shape: tuple[int, int]) -> Mask:
        """Which positions of a state of ``stack`` are measured."""
        if shape[0] != self.items:
            raise MaskError(f"passes states of {shape[0]} items for a batch of {self.items}: no mask fits them")
        # A position of a feature map is a place in the image, whatever stands before patches elsewhere.
        return all_kept(shape) if stack.maps else self.masks(stack.prefix, shape)


class Modality(ABC):
    """Data of one kind, made ready for one model.

    ``unit`` and ``item`` are what positions and sequences are called, ``mask`` says what is left out, ``skips`` holds
    what was skipped whole, ``notes`` and ``provenance`` go into the result.
    """

    unit: ClassVar[str]
    item: ClassVar[str]
    mask: str
    name: str
    size: int | None
    identity: str | None
    limit: int | None = None
    """Measured positions after which the data end, if asked for."""

    most_items: int | None = None
    """Items after which the data end, if asked for."""

    follows_dtype: ClassVar[bool] = True
    """Whether floating-point inputs take the dtype of the model."""

    def __init__(self, network: nn.Module) -> None:
        """Nothing read yet."""
        self.network = network
        self.skips = Skips()
        self.notes: list[str] = []
        self.provenance: dict[str, Any] = {}

    @abstractmethod
    def batches(self) -> Iterator[ModelBatch]:
        """The data, batch by batch; unusable items are skipped and counted."""

    def first(self, batch: ModelBatch) -> ModelBatch:
        """One item of a batch, for the pass that is watched."""

        def one(value: Any) -> Any:
            return value[:1] if isinstance(value, Tensor) and value.dim() and len(value) == batch.items else value

        arguments = {name: one(value) for name, value in batch.arguments.items()}
        return replace(
            batch,
            arguments=arguments,
            items=1,
            masks=lambda prefix, shape: batch.masks(prefix, (batch.items, shape[1])),
        )

    def remarks(self) -> list[str]:
        """What to know of the data as far as they were read."""
        return [*self.notes, *self.skips.notes(self.item)]

    def nothing(self) -> ValueError:
        """The error where there was nothing to read."""
        skipped = f" (skipped: {self.skips})" if self.skips.counts else ""
        return ValueError(f"data: no {self.unit} in {self.name}{skipped}")


def check_counts(**options: int | None) -> None:
    """Raise ``ValueError`` for an option that is no positive int."""
    for name, value in options.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name}: expected a positive int, got {value!r}")


def refuse(item: str, **options: Any) -> None:
    """Raise ``ValueError`` for an option that was given and means nothing for ``item``."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name}: means nothing for {item}, got {value!r}; leave it out")
