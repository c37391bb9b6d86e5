"""Batches of the caller's own: dicts of tensors that go into the model's forward, with masks from what they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastaniso.models.inputs import takes, without_cache
from fastaniso.models.masks import MEASURED, PADDING, SPECIAL, Mask, MaskError, all_kept, coded, frame_mask, token_mask
from fastaniso.scanning.modalities.modality import Modality, ModelBatch
from fastaniso.scanning.modalities.vision import PatchMasks
from fastaniso.sources import Batches

MASK, SPECIAL_MASK = "mask", "special_tokens_mask"
"""Entries of a batch that are not for the model: bool (items, positions), True is measured; and the tokenizer's."""


class GivenModality(Modality):
    """Batches that are the model's arguments already."""

    unit: ClassVar[str] = "positions"
    item: ClassVar[str] = "sequences"
    follows_dtype: ClassVar[bool] = False
    mask = (
        "the batch's own mask where it has one; else padding (attention_mask), special_tokens_mask and BOS, tokens "
        "before patches (pixel_values), padded frames (input_values, input_features)"
    )

    def __init__(self, given: Batches, network: nn.Module) -> None:
        """Nothing is read before ``batches``."""
        super().__init__(network)
        self.name, self.size, self.identity = given.name, given.size, given.identity
        self._given = given

    def batches(self) -> Iterator[ModelBatch]:
        """The batches, each checked before the model sees it."""
        for number, batch in enumerate(self._given.entries):
            arguments, items = _arguments(batch, number)
            mask = arguments.pop(MASK, None) if not takes(self.network, MASK) else None
            special = arguments.pop(SPECIAL_MASK, None)
            masks: Callable[[str, tuple[int, int]], Mask]
            if mask is not None:
                masks = _OwnMask(_bool(mask, number))
            else:
                masks = _BatchMasks(self.network, arguments, special)
                if masks.is_silent:
                    said = "the batches hold neither a mask nor an argument that tells padding: every position counts"
                    self.notes += [said] if said not in self.notes else []
            yield ModelBatch({**without_cache(self.network), **arguments}, items, masks)


@dataclass(frozen=True)
class _OwnMask:
    keep: Tensor

    def __call__(self, prefix: str, shape: tuple[int, int]) -> Mask:
        if self.keep.shape != shape:
            raise MaskError(f"passes states of shape {shape} where the batch's mask is {tuple(self.keep.shape)}")
        return coded(torch.where(self.keep, MEASURED, 1), ("masked",))


@dataclass(frozen=True)
class _BatchMasks:
    """The masks that the arguments of a batch tell, as the modalities make them."""

    network: nn.Module
    arguments: Mapping[str, Any]
    special: Tensor | None

    @property
    def is_silent(self) -> bool:
        return not {"input_ids", "attention_mask", "pixel_values", "input_values", "input_features"} & set(
            self.arguments
        )

    def __call__(self, prefix: str, shape: tuple[int, int]) -> Mask:
        given = self.arguments
        decoder = prefix == "decoder." and "decoder_input_ids" in given
        if decoder or "input_ids" in given:
            before = "decoder_" if decoder else ""
            ids, attention = given[f"{before}input_ids"], given.get(f"{before}attention_mask")
            special = self.special if self.special is not None and self.special.shape == ids.shape else None
            return token_mask(self.network, self._codes(ids, attention, special), shape)
        if "pixel_values" in given:
            return PatchMasks(self.network, given["pixel_values"])(prefix, shape)
        if "input_values" in given or "input_features" in given:
            features = given.get("input_values", given.get("input_features"))
            # Samples (items, n), or features (items, bands, frames) as Whisper's: their frames are the last axis.
            real = given.get("attention_mask", torch.ones(features.shape[0], features.shape[-1], dtype=torch.int64))
            return frame_mask(self.network, real.cpu(), shape)
        attention = given.get("attention_mask")
        if attention is not None and attention.shape == shape:
            return coded(torch.where(attention.cpu().bool(), MEASURED, 1), ("padding",))
        return all_kept(shape)

    def _codes(self, ids: Tensor, attention: Tensor | None, special: Tensor | None) -> Tensor:
        codes = torch.zeros(ids.shape, dtype=torch.int8)
        if special is not None:
            codes[special.cpu().bool()] = SPECIAL
        begin = getattr(getattr(self.network, "config", None), "bos_token_id", None)
        if isinstance(begin, int):
            codes[ids.cpu() == begin] = SPECIAL
        if attention is not None and attention.shape == ids.shape:
            codes[~attention.cpu().bool()] = PADDING
        return codes


def _arguments(batch: Any, number: int) -> tuple[dict[str, Any], int]:
    if not isinstance(batch, Mapping) or not any(isinstance(value, Tensor) for value in batch.values()):
        raise TypeError(
            f"data[{number}]: expected a dict of tensors for the model's forward, got {type(batch).__name__}; "
            "for example dict(input_ids=ids)"
        )
    items = {name: len(value) for name, value in batch.items() if isinstance(value, Tensor) and value.dim()}
    if len(set(items.values())) != 1:
        raise ValueError(f"data[{number}]: expected tensors of as many items each, got {items}")
    count = next(iter(items.values()))
    if not count:
        raise ValueError(f"data[{number}]: expected at least one item, got tensors of none")
    return dict(batch), count


def _bool(mask: Any, number: int) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() != 2:
        kind = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"data[{number}]: mask: expected bool (items, positions), True is measured, got {kind}; pass mask.bool()"
        )
    return mask.cpu()
