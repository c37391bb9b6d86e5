"""Names of a model's attentions: by the block they are in, and by their call where blocks are shared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import nn

from fastaniso.models.stacks import Stack


class Place(NamedTuple):
    """Which call of which attention: ``prefix`` of its stack and ``number`` of its block, and where it is in the block.

    Outside of the stacks ``prefix`` is None, ``inner`` the path of the module and ``number`` counts its calls.
    """

    prefix: str | None
    number: int
    inner: str


class AttentionNames:
    """Names attentions in the order in which a forward pass calls them."""

    def __init__(self, model: nn.Module, stacks: Sequence[Stack] = ()) -> None:
        """Names after ``stacks``, and after the paths of modules outside of them."""
        self._paths = {module: path for path, module in model.named_modules()}
        self._blocks: dict[nn.Module, tuple[Stack, int, str]] = {}
        for stack in stacks:
            for index, block in enumerate(stack.blocks):
                for path, module in block.named_modules():
                    self._blocks[module] = stack, index, path
        self._calls: Counter[tuple[str | None, str]] = Counter()
        self._last: dict[Place, str] = {}

    def begin(self) -> None:
        """A forward pass begins: calls are counted anew."""
        self._calls.clear()

    def place(self, module: nn.Module) -> Place:
        """Where the call is that ``module`` makes now."""
        prefix, index, inner = None, None, self._paths[module]
        if module in self._blocks:
            stack, index, inner = self._blocks[module]
            prefix = stack.prefix
            if len(stack.blocks) != stack.depth:  # shared blocks: the place is that of the call
                index = None
        number = self._calls[prefix, inner] if index is None else index
        self._calls[prefix, inner] += 1
        place = Place(prefix, number, inner)
        self._last[place] = self._paths[module]
        return place

    def path(self, place: Place) -> str:
        """The path of the module that made the call."""
        return self._last[place]

    def sites(self, places: Iterable[Place]) -> dict[Place, str]:
        """``block.3``, and where a block has several attentions ``block.3.self_attn``; elsewhere the module's path."""
        places = list(places)
        inner: dict[str, set[str]] = {}
        for place in places:
            if place.prefix is not None:
                inner.setdefault(place.prefix, set()).add(place.inner)
        often = {place.inner for place in places if place.prefix is None and place.number}
        names = {}
        for place in places:
            if place.prefix is None:
                names[place] = place.inner + (f":{place.number}" if place.inner in often else "")
            else:
                name = f"{place.prefix}block.{place.number}"
                names[place] = f"{name}.{place.inner}" if len(inner[place.prefix]) > 1 else name
        return names
