"""At which positions queries and keys are measured: those of a scan's batch, or of masks that a caller gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from fastaniso.models.attention.masks import UnreadableMaskError
from fastaniso.models.attention.names import Place
from fastaniso.models.masks import MaskError
from fastaniso.models.stacks import Stack
from fastaniso.scanning.modalities import ModelBatch

Shape = tuple[int, int]


class Positions(Protocol):
    """Bool masks (items, positions), True is measured; None where only the model's own masks can tell."""

    def of_queries(self, place: Place, shape: Shape, keys: int) -> Tensor | None:
        """Of a call's queries; ``UnreadableMaskError`` if they are other positions than those that are measured."""

    def of_keys_beside(self, place: Place, shape: Shape) -> Tensor | None:
        """Of keys from other states than the queries' (cross-attention)."""


class BatchPositions:
    """Those that a scan measures hidden states at, stack by stack."""

    def __init__(self, batch: ModelBatch, stacks: Sequence[Stack]) -> None:
        """For the forward pass of ``batch``."""
        self._batch = batch
        self._stacks = {stack.prefix: stack for stack in stacks}
        self._known: dict[tuple[str, Shape], Tensor | str] = {}

    def of_queries(self, place: Place, shape: Shape, keys: int) -> Tensor | None:
        """The mask of the stack that the call is in."""
        if place.prefix is None:
            return None
        mask = self._mask(place.prefix, shape)
        if isinstance(mask, str):
            raise UnreadableMaskError(f"its queries have no mask: {mask}")
        return mask

    def of_keys_beside(self, place: Place, shape: Shape) -> Tensor | None:
        """The mask of another stack that has such positions."""
        masks = [self._mask(prefix, shape) for prefix in self._stacks if prefix != place.prefix]
        return next((mask for mask in masks if isinstance(mask, Tensor)), None)

    def _mask(self, prefix: str, shape: Shape) -> Tensor | str:
        if (prefix, shape) not in self._known:
            try:
                self._known[prefix, shape] = self._batch.mask(self._stacks[prefix], shape).keep
            except MaskError as reason:
                self._known[prefix, shape] = str(reason)
        return self._known[prefix, shape]


class GivenPositions:
    """Masks by the part of a module's path that they are for; "" is for all."""

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        """For the forward passes from now on."""
        self._masks = masks

    def of_queries(self, place: Place, shape: Shape, keys: int) -> Tensor | None:
        """The mask named for the call's module, or the one for all, if it has the queries' positions.

        With a cache the mask has the positions of all keys, and the queries are the last.
        """
        fitting = {part: mask for part, mask in self._masks.items() if mask.shape in (shape, (shape[0], keys))}
        named = [mask for part, mask in fitting.items() if _is_in(part, place)]
        mask = named[0] if named else fitting.get("")
        return None if mask is None else mask[:, -shape[1] :]

    def of_keys_beside(self, place: Place, shape: Shape) -> Tensor | None:
        """A mask with the keys' positions that is not named for the call's module."""
        others = [mask for part, mask in self._masks.items() if mask.shape == shape and not _is_in(part, place)]
        return others[0] if others else None


def _is_in(part: str, place: Place) -> bool:
    return part in place.inner.split(".")
