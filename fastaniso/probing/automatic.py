"""The blocks of a model, found by structure alone: no forward pass is made or watched."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import nn

from fastaniso.probing.places import NEVER_CALLED, Place


@dataclass(frozen=True)
class Stack:
    """Blocks in a list. ``path`` is the list's name and ``owner`` what calls them: the module that holds the list.

    Sites are ``{prefix}embedding``, what the first block takes, and ``{prefix}block.i``.
    """

    prefix: str
    path: str
    owner: Place
    blocks: tuple[Place, ...]


def find_blocks(places: dict[str, Place], *, maps: bool) -> tuple[Stack, ...]:
    """The outermost lists of blocks; of convolutional blocks only where ``maps`` are wanted.

    A list is a ``ModuleList``, at least half of whose members are of one class, or a ``Sequential`` of one class alone,
    and all members have parts of their own. Where there is no list of two or more, lists of one are taken (a block that
    is called again and again).
    """
    lists: list[tuple[Place, tuple[Place, ...]]] = []
    for place in places.values():
        if not isinstance(place.inner, nn.ModuleList | nn.Sequential):
            continue
        members = tuple(places[f"{place.name}.{child}" if place.name else child] for child in place.inner._modules)
        inside = any(place.name.startswith(f"{member.name}.") for _, found in lists for member in found)
        if not inside and _repeated(place.inner, members):
            lists.append((place, members))
    lists = [found for found in lists if maps or not all(map(_convolutional, found[1]))]
    lists = [found for found in lists if len(found[1]) > 1] or lists
    if not lists:
        raise ValueError(
            "sites: found no list of repeated blocks in the model; name the modules to measure, such as "
            f"sites={_examples(places)}" + ("" if maps else ", and for convolutional maps pass channels='first'")
        )
    prefixes = _prefixes([place.name for place, _ in lists])
    return tuple(
        Stack(prefix, place.name, places[place.parent], members)
        for prefix, (place, members) in zip(prefixes, lists, strict=True)
    )


def _repeated(module: nn.Module, members: tuple[Place, ...]) -> bool:
    if not members or any(isinstance(m.inner, NEVER_CALLED) or not any(m.inner.children()) for m in members):
        return False
    most = max(Counter(type(m.inner) for m in members).values())
    return most == len(members) if isinstance(module, nn.Sequential) else 2 * most >= len(members)


def _convolutional(place: Place) -> bool:
    """Whether most parameters are kernels of convolutions: then what passes is a map, not rows."""
    convolutions = (m for m in place.inner.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d))
    kernels = sum(p.numel() for m in convolutions for p in m.parameters())
    return 2 * kernels > sum(p.numel() for p in place.inner.parameters())


def _prefixes(paths: list[str]) -> list[str]:
    """Nothing for one list; else what holds it, without what all have in common, or the whole path."""
    if len(paths) == 1:
        return [""]
    holders = [path.split(".")[:-1] for path in paths]
    while all(holders) and len({holder[0] for holder in holders}) == 1:
        holders = [holder[1:] for holder in holders]
    distinct = all(holders) and len({tuple(holder) for holder in holders}) == len(paths)
    return [".".join(holder) + "." for holder in holders] if distinct else [path + "." for path in paths]


def _examples(places: dict[str, Place]) -> list[str]:
    return [name for name, place in places.items() if name and any(place.inner.children())][:2] or list(places)[1:3]
