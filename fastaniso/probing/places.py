"""The modules of a model by the names that its author gave them: what wraps a module is no part of its name."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

_WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What ``torch.compile``, ``FullyShardedDataParallel`` and checkpoint wrappers call the module that they hold."""

NEVER_CALLED = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Modules that only hold others: they have no output."""


@dataclass(frozen=True)
class Place:
    """A module by its name; "" is the model itself. ``outer`` is what its callers call: the outermost wrapper."""

    name: str
    outer: nn.Module
    inner: nn.Module

    @property
    def parts(self) -> tuple[str, ...]:
        """The name's parts between the dots."""
        return tuple(self.name.split(".")) if self.name else ()

    @property
    def parent(self) -> str:
        """The name of the module that holds it."""
        return self.name.rpartition(".")[0]


def places_of(model: nn.Module) -> dict[str, Place]:
    """Every module by every name that it has, a parent before its children."""
    found: dict[str, Place] = {}

    def visit(name: str, outer: nn.Module, above: frozenset[nn.Module]) -> None:
        inner = unwrapped(outer)
        if inner in above:  # a module that holds itself
            return
        found[name] = Place(name, outer, inner)
        if isinstance(inner, torch.jit.ScriptModule):  # called as a whole: what is inside runs without hooks
            return
        for child, module in inner._modules.items():
            if module is not None:
                visit(f"{name}.{child}" if name else child, module, above | {inner})

    visit("", model, frozenset())
    return found


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside of wrappers: compiled, sharded, checkpointed, or any that holds one ``module`` and no other."""
    while not isinstance(module, torch.jit.ScriptModule):
        children = module._modules
        name = next((name for name in _WRAPPED if name in children), "module" if list(children) == ["module"] else "")
        inner = children.get(name)
        if inner is None:
            return module
        module = inner
    return module


def matches(pattern: str, name: str) -> bool:
    """Whether a glob fits the name: ``*`` stands for (a part of) one part between dots, ``**`` for any parts."""
    return _fits(tuple(pattern.split(".")), tuple(name.split(".")))


def _fits(pattern: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        return any(_fits(rest, parts[skipped:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], first) and _fits(rest, parts[1:])
