"""Hooks on the sites: what passes is named and handed on, and nothing of them is left when they are taken off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from threading import get_ident
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastaniso.probing.automatic import Stack
from fastaniso.probing.masks import Given, Giver
from fastaniso.probing.places import Place
from fastaniso.probing.selection import Selection


class Receiver(Protocol):
    """What hooks hand on to."""

    def receive(self, site: str, output: Any, given: Given | None) -> None:
        """The output of a site, and the mask of the call around it."""

    def refuse(self, site: str, error: Exception) -> Exception:
        """The error to raise for one that a hook met."""


def recomputing() -> bool:
    """Whether a backward pass is running: what is called now was called before, and a checkpoint makes it again."""
    return torch._C._current_graph_task_id() != -1


class Hooks:
    """Hooks on the sites of a selection; ``attach`` and ``detach`` as often as wanted.

    Replicas of ``DataParallel`` run in threads of their own and share the hooks, so what belongs to one call (its mask,
    which block comes next) is kept by thread.
    """

    def __init__(self, selection: Selection, givers: Mapping[str, tuple[Giver, ...]], receiver: Receiver) -> None:
        """``givers`` by the names of places."""
        self._selection = selection
        self._givers = givers
        self._receiver = receiver
        self._handles: list[Any] = []
        self._before: list[tuple[nn.Module, Callable[..., None]]] = []
        self._given: dict[tuple[int, Giver], Given | None] = {}
        self._last: dict[tuple[int, str], int] = {}

    def attach(self) -> None:
        """Hook every site, the modules that are given masks, and what calls the blocks."""
        givers = list(dict.fromkeys(giver for place in self._hooked() for giver in self._givers[place.name]))
        for giver in givers:
            self._add_before(giver.place.inner, partial(self._take, giver))
        for stack in self._selection.stacks:
            self._add_before(stack.owner.inner, partial(self._begin_stack, stack))
            for index, block in enumerate(stack.blocks):
                self._add_before(block.outer, partial(self._before_block, stack, index))
                self._add_after(block.outer, partial(self._after_block, stack, index))
            self._add_after(stack.owner.inner, partial(self._end_stack, stack), always_call=True)
        for name, place in self._selection.modules.items():
            self._add_after(place.outer, partial(self._after_module, name, place))
        # Last, so that where the model itself is a site its mask is still there.
        for giver in givers:
            self._add_after(giver.place.inner, partial(self._forget, giver), always_call=True)

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What hooks would have done, had they been there when a call of ``module`` began."""
        for hooked, hook in list(self._before):
            if hooked is module:
                hook(module, args, kwargs)

    def detach(self) -> None:
        """Take every hook off."""
        while self._handles:
            self._handles.pop().remove()
        self._before.clear()
        self._given.clear()
        self._last.clear()

    def _hooked(self) -> list[Place]:
        blocks = [block for stack in self._selection.stacks for block in stack.blocks]
        return [*self._selection.modules.values(), *blocks]

    def _add_before(self, module: nn.Module, hook: Callable[..., None]) -> None:
        self._before.append((module, hook))
        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def _add_after(self, module: nn.Module, hook: Callable[..., None], *, always_call: bool = False) -> None:
        self._handles.append(module.register_forward_hook(hook, always_call=always_call))

    def _take(self, giver: Giver, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not recomputing():
            self._given[get_ident(), giver] = giver.take(args, kwargs)

    def _forget(self, giver: Giver, *_: Any) -> None:
        self._given.pop((get_ident(), giver), None)

    def _begin_stack(self, stack: Stack, *_: Any) -> None:
        if not recomputing():
            self._last[get_ident(), stack.path] = -1

    def _end_stack(self, stack: Stack, *_: Any) -> None:
        if not recomputing():
            self._last.pop((get_ident(), stack.path), None)

    def _before_block(
        self, stack: Stack, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        # Called by something else than its owner, a block is taken to be called in its turn.
        first = self._last.get((get_ident(), stack.path), index - 1) == -1
        if first and not recomputing():
            self._hand_on(f"{stack.prefix}embedding", stack.blocks[index], _taken(args, kwargs))

    def _after_block(self, stack: Stack, index: int, module: nn.Module, args: Any, output: Any) -> None:
        if recomputing():
            return
        key = get_ident(), stack.path
        if key in self._last:
            # A block that is left out (LayerDrop) leaves a gap, and one that is called again counts on.
            index = self._last[key] = max(index, self._last[key] + 1)
        self._hand_on(f"{stack.prefix}block.{index}", stack.blocks[min(index, len(stack.blocks) - 1)], output)

    def _after_module(self, site: str, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        if not recomputing():
            self._hand_on(site, place, output)

    def _hand_on(self, site: str, place: Place, output: Any) -> None:
        # The outermost of those that are being called: a part of the model may be called by itself.
        called = ((get_ident(), giver) for giver in self._givers[place.name])
        given = next((self._given[key] for key in called if key in self._given), None)
        try:
            self._receiver.receive(site, output, given)
        except (TypeError, ValueError) as error:
            raise self._receiver.refuse(site, error) from None


def _taken(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The hidden state that a block takes: its first tensor of floats with rows."""
    values = (*args, *kwargs.values())
    return next((v for v in values if isinstance(v, Tensor) and v.is_floating_point() and v.dim() > 1), values[:1])
