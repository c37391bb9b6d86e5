"""Which modules are sites: by name, by class, by themselves, or found by structure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from fastaniso.probing.automatic import Stack, find_blocks
from fastaniso.probing.places import NEVER_CALLED, Place, matches, places_of


@dataclass(frozen=True)
class Selection:
    """The sites of a model: single modules by the names of the sites, or stacks of blocks."""

    places: Mapping[str, Place]
    modules: Mapping[str, Place]
    stacks: tuple[Stack, ...]

    @property
    def root(self) -> Place:
        """The model."""
        return self.places[""]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sites; a stack whose blocks are called again has more when they were."""
        blocks = [
            name for stack in self.stacks for name in ("embedding", *(f"block.{i}" for i in range(len(stack.blocks))))
        ]
        prefixes = [stack.prefix for stack in self.stacks for _ in range(len(stack.blocks) + 1)]
        return (*self.modules, *(prefix + name for prefix, name in zip(prefixes, blocks, strict=True)))


def choose(model: nn.Module, sites: Any, *, maps: bool) -> Selection:
    """The sites asked for; ``ValueError`` where one is not there, with the nearest names, or where two collide."""
    selection = _chosen(model, sites, maps=maps)
    for place in (selection.root, *selection.modules.values(), *(b for s in selection.stacks for b in s.blocks)):
        if isinstance(place.outer, torch.jit.ScriptModule):
            raise ValueError(
                f"sites: {place.name or 'the model'!r} is TorchScript, which takes no hooks; probe the model that it "
                "was made from"
            )
    return selection


def _chosen(model: nn.Module, sites: Any, *, maps: bool) -> Selection:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    places = places_of(model)
    if sites is None:
        return Selection(places, {}, find_blocks(places, maps=maps))
    if isinstance(sites, Mapping):
        return Selection(places, _labelled(places, sites), ())
    chosen: dict[int, Place] = {}
    exact: dict[int, str] = {}
    for wanted in _several(sites):
        for place in _found(places, wanted):
            known = exact.get(id(place.inner))
            if known not in (None, place.name) and place.name == wanted:
                raise ValueError(
                    f"sites: {known!r} and {place.name!r} are one module by two names, so their calls cannot be told "
                    "apart; give one of them"
                )
            if place.name == wanted:
                exact[id(place.inner)] = place.name
                chosen[id(place.inner)] = place
            # By a pattern or a class, a module of two names goes by the first.
            chosen.setdefault(id(place.inner), place)
    if not chosen:
        raise ValueError("sites: expected at least one pattern, class or module, got none; leave it out for the blocks")
    ordered = [place for place in places.values() if chosen.get(id(place.inner)) == place]
    return Selection(places, {place.name or type(place.inner).__name__: place for place in ordered}, ())


def _labelled(places: dict[str, Place], sites: Mapping[str, Any]) -> dict[str, Place]:
    labelled: dict[str, Place] = {}
    for label, wanted in sites.items():
        place = _one(places, label, wanted)
        for other, known in labelled.items():
            if known.inner is place.inner:
                raise ValueError(f"sites: {other!r} and {label!r} are one module, {place.name!r}; give one of them")
        labelled[label] = place
    return labelled


def _several(sites: Any) -> Iterable[Any]:
    # A Sequential is a module, though it can be iterated over; a ModuleList stands for its members.
    if isinstance(sites, nn.ModuleList):
        return tuple(sites)
    return (sites,) if isinstance(sites, str | type | nn.Module) else tuple(sites)


def _one(places: dict[str, Place], label: str, wanted: Any) -> Place:
    found = _found(places, wanted)
    if len(found) != 1:
        raise ValueError(
            f"sites: {label!r} would stand for {len(found)} modules ({', '.join(p.name for p in found[:3])}, …), whose "
            "states would be counted together; give one module a name, or a list of patterns, which name each by itself"
        )
    return found[0]


def _found(places: dict[str, Place], wanted: Any) -> list[Place]:
    """The places that one entry of ``sites`` stands for, one at least."""
    if isinstance(wanted, str):
        return _by_name(places, wanted)
    if isinstance(wanted, type) and issubclass(wanted, nn.Module):
        found = [place for place in places.values() if isinstance(place.inner, wanted)]
        if not found:
            classes = sorted({type(place.inner).__name__ for place in places.values()})
            raise ValueError(f"sites: no module is a {wanted.__name__}; there are {', '.join(classes)}")
        return found
    if isinstance(wanted, nn.Module):
        for place in places.values():
            if wanted in (place.inner, place.outer):
                return [place]
        raise ValueError(f"sites: the {type(wanted).__name__} given is no part of the model; give one of its modules")
    raise TypeError(
        f"sites: expected a name or pattern, a class of modules, a module, or several of these, got {wanted!r}"
    )


def _by_name(places: dict[str, Place], pattern: str) -> list[Place]:
    found = [place for place in places.values() if place.name and matches(pattern, place.name)]
    called = [place for place in found if not isinstance(place.inner, NEVER_CALLED)]
    if called:
        return called
    if found:
        raise ValueError(
            f"sites: {pattern!r} is a {type(found[0].inner).__name__}, which is never called and has no output; "
            f"its members are {found[0].name + '.*'!r}"
        )
    near = get_close_matches(pattern, [name for name in places if name], n=3, cutoff=0.4)
    hint = f"the nearest names are {', '.join(near)}" if near else f"names are such as {', '.join(list(places)[1:4])}"
    raise ValueError(
        f"sites: no module is called {pattern!r}; {hint} (* stands for one part of a name between dots, ** for any)"
    )
