"""Images as patches, or as the positions of a convolutional network's feature maps.

The tokens before the patches (class, distillation, registers) are left out. Images go through the model's own image
processor, one by one; those of one size share a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastaniso.models.inputs import takes
from fastaniso.models.masks import Mask, patch_mask
from fastaniso.scanning.modalities.modality import Modality, ModelBatch
from fastaniso.sources import Images

WAITING = 8
"""Batches' worth of images of several sizes that wait for others of theirs."""


class VisionModality(Modality):
    """Images for a model that takes ``pixel_values``."""

    unit: ClassVar[str] = "patches"
    item: ClassVar[str] = "images"
    mask = "patches; class, distillation and register tokens left out"

    def __init__(
        self, images: Images, network: nn.Module, processor: Any, *, max_items: int | None, batch_size: int
    ) -> None:
        """Check that the model takes images."""
        super().__init__(network)
        self.name, self.size, self.identity, self.skips = images.name, images.size, images.identity, images.skips
        if not takes(network, "pixel_values"):
            raise ValueError(
                f"model: expected a model of images, whose forward takes pixel_values, got {type(network).__name__}; "
                "images as another argument are given as batches: an iterable of dicts of tensors"
            )
        self._images = images
        self._processor = processor
        self._batch_size = batch_size
        self.most_items = max_items
        patch: Any = getattr(getattr(network, "config", None), "patch_size", None)
        self._patch = patch if isinstance(patch, int) else max(patch or (1,))
        self.notes += getattr(processor, "notes", [])
        self.provenance = {
            "image_processor": type(processor).__name__,
            "batch_size": batch_size,
            "max_items": max_items,
        }

    def batches(self) -> Iterator[ModelBatch]:
        """Images of one size together, in their order."""
        waiting: dict[torch.Size, list[tuple[Tensor, int]]] = {}
        count = 0
        for pixels, size in islice(self._pixels(), self.most_items):
            run = waiting.setdefault(pixels.shape, [])
            run.append((pixels, size))
            count += 1
            if len(run) == self._batch_size or count == WAITING * self._batch_size:
                fullest = max(waiting, key=lambda shape: len(waiting[shape]))
                done = waiting.pop(fullest)
                count -= len(done)
                yield self._model_batch(done)
        for run in waiting.values():
            yield self._model_batch(run)

    def _pixels(self) -> Iterator[tuple[Tensor, int]]:
        for image in self._images:
            try:
                pixels = self._processor(images=image.picture, return_tensors="pt")["pixel_values"]
            except (ValueError, RuntimeError, ZeroDivisionError) as error:
                size = "{} × {}".format(*image.picture.size)
                self.skips.add(f"the image processor refused it ({type(error).__name__})", f"{image.name}, {size}")
                continue
            if min(pixels.shape[-2:]) < self._patch:
                self.skips.add("smaller than a patch", image.name)
                continue
            yield pixels[0], image.bytes

    def _model_batch(self, images: list[tuple[Tensor, int]]) -> ModelBatch:
        pixels = torch.stack([image for image, _ in images])
        arguments = {"pixel_values": pixels}
        return ModelBatch(arguments, len(images), PatchMasks(self.network, pixels), sum(size for _, size in images))


@dataclass(frozen=True)
class PatchMasks:
    """The masks of the states of one batch of images."""

    network: nn.Module
    pixels: Tensor

    def __call__(self, prefix: str, shape: tuple[int, int]) -> Mask:
        """The mask for the shape of a state, whatever its stack."""
        height, width = self.pixels.shape[-2:]
        return patch_mask(self.network, (height, width), shape)
