"""Find the stacks of blocks of any model by structure, never by a path that a release may change.

A stack is an outermost ``ModuleList`` whose members pass one state on: each takes a ``[items, positions, d]`` tensor
and gives one of the same shape, which the next takes. That cannot be read off the modules alone, so one short forward
pass is watched. The watch also counts how often shared blocks are called (ALBERT) and finds the final norm: the norm
outside of the blocks that takes the last block's output. A model without such a stack may still pass feature maps on
(``convolutional``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fastaniso.models.convolutional import map_chains
from fastaniso.models.watching import Chain, watched


@dataclass(frozen=True)
class Stack:
    """Blocks that pass one hidden state on, and the norm after them.

    ``prefix`` goes before the names of the sites (``"encoder."`` in an encoder–decoder, else usually empty);
    ``depth`` counts block calls in one forward pass, which is more than ``len(blocks)`` where blocks are shared.
    ``shape`` is that of the last state in the watched pass, ``(items, positions, d)``, or of feature maps
    ``(items, channels, height, width)``, which may differ from block to block; ``dim`` is the widest row of a site.
    """

    prefix: str
    path: str
    blocks: tuple[nn.Module, ...]
    depth: int
    dim: int
    final_norm: nn.Module | None
    shape: tuple[int, ...]

    @property
    def maps(self) -> bool:
        """Whether the states are feature maps, whose positions are height × width and whose rows are channels."""
        return len(self.shape) == 4

    @property
    def positions(self) -> int:
        """Positions of the last state of one item in the watched pass."""
        return self.shape[2] * self.shape[3] if self.maps else self.shape[1]

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the sites in the order of the flow."""
        names = ["embedding", *(f"block.{i}" for i in range(self.depth))]
        if self.final_norm is not None:
            names += ["pre_final_norm", "post_final_norm"]
        return tuple(self.prefix + name for name in names)


@dataclass(frozen=True)
class Anatomy:
    """The stacks of a model, and a sentence on each stack that was left out."""

    stacks: tuple[Stack, ...]
    left_out: tuple[str, ...] = ()

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of all sites."""
        return tuple(site for stack in self.stacks for site in stack.sites)

    @property
    def same_as(self) -> dict[str, str]:
        """Sites that are another site's state by a second name: what goes into a final norm left the last block."""
        return {
            f"{stack.prefix}pre_final_norm": f"{stack.prefix}block.{stack.depth - 1}"
            for stack in self.stacks
            if stack.final_norm is not None
        }

    def without(self, reasons: dict[Stack, str]) -> Anatomy:
        """The anatomy less some stacks, each with the reason."""
        said = (f"{stack.path}: {reason}" for stack, reason in reasons.items())
        return Anatomy(tuple(s for s in self.stacks if s not in reasons), (*self.left_out, *said))


def find_stacks(model: nn.Module, forward: Callable[[], Any]) -> Anatomy:
    """Find the stacks of ``model`` by watching ``forward()``, one pass over little data.

    Raises ``ValueError`` where nothing is found.
    """
    lists = [
        Chain(path, tuple(module), dims=3)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and all(any(m.children()) for m in module)
    ]
    maps = map_chains(model)
    with torch.no_grad(), watched(model, [*lists, *(chain for rank in maps for chain in rank)]):
        forward()
    found = _outermost([chain for chain in lists if chain.keeps_shape and chain.is_one])
    for rank in maps:
        found = found or _outermost([chain for chain in rank if chain.is_one and chain.calls > 1])
    if not found:
        raise ValueError(
            f"model: found no stack of blocks in {type(model).__name__}: expected a ModuleList whose members pass on a "
            "[items, positions, d] state, or modules in a row that pass on [items, channels, height, width] maps"
        )
    inside = {module for chain in found for member in chain.members for module in member.modules()}
    return Anatomy(
        tuple(
            Stack(
                prefix=prefix,
                path=chain.path or type(model).__name__,
                blocks=tuple(dict.fromkeys(chain.members)),
                depth=chain.calls,
                dim=chain.widest,
                final_norm=next((norm for norm in chain.norms if norm not in inside), None),
                shape=chain.shape,
            )
            for prefix, chain in zip(_prefixes([chain.path for chain in found]), found, strict=True)
        )
    )


def _outermost(chains: Sequence[Chain]) -> list[Chain]:
    """Those that lie in no other; ``named_modules()`` gave a parent before its children."""
    outermost: list[Chain] = []
    inside: set[nn.Module] = set()
    for chain in chains:
        if not inside.intersection(chain.members):
            outermost.append(chain)
            inside.update(module for member in chain.members for module in member.modules())
    return outermost


def _prefixes(paths: list[str]) -> list[str]:
    """Nothing for one stack; encoder./decoder. where the paths say so; else the path of the module that holds it."""
    if len(paths) == 1:
        return [""]
    for names in (("encoder", "decoder"), ("decoder", "encoder")):
        if len(paths) == 2 and all(name in path.split(".") for name, path in zip(names, paths, strict=True)):
            return [f"{name}." for name in names]
    holders = [path.rpartition(".")[0] for path in paths]
    return [f"{name}." for name in (holders if len(set(holders)) == len(holders) and all(holders) else paths)]
