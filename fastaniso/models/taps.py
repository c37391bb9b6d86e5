"""Read the hidden states of the stacks as they pass, one at a time: nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from fastaniso.models.stacks import Stack
from fastaniso.models.watching import given_state, taken_state

Receive = Callable[[str, Tensor], None]


@contextmanager
def tapped(model: nn.Module, stacks: tuple[Stack, ...], receive: Receive) -> Iterator[None]:
    """Call ``receive(site, state)`` for every site during forward passes of ``model`` inside the ``with``.

    ``pre_final_norm`` is the state of the last block and is not given a second time. The hooks are gone when the
    ``with`` ends, also by an exception.
    """
    taps = [_StackTap(stack, receive) for stack in stacks]

    def begin(*_: object) -> None:
        for tap in taps:
            tap.begin()

    handles = [model.register_forward_pre_hook(begin)]
    try:
        for tap in taps:
            handles += tap.attach()
        yield
    finally:
        for handle in handles:
            handle.remove()


class _StackTap:
    """Names each block call by its place in the forward pass, which also numbers the calls of a shared block."""

    def __init__(self, stack: Stack, receive: Receive) -> None:
        self._stack = stack
        self._receive = receive
        self._calls = 0
        self._names = [f"{stack.prefix}block.{i}" for i in range(stack.depth)]

    def attach(self) -> list[Any]:
        handles: list[Any] = []
        for block in self._stack.blocks:
            # Only the first block called takes the embedding, but which one that is may differ where blocks are shared.
            handles.append(block.register_forward_pre_hook(self._before, with_kwargs=True))
            handles.append(block.register_forward_hook(self._after))
        if self._stack.final_norm is not None:
            handles.append(self._stack.final_norm.register_forward_hook(self._after_norm))
        return handles

    def begin(self) -> None:
        self._calls = 0

    def _before(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._calls == 0:
            state = taken_state(args, kwargs, len(self._stack.shape))
            assert state is not None  # find_stacks took no stack whose blocks take no state
            self._receive(f"{self._stack.prefix}embedding", state)

    def _after(self, block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._calls >= self._stack.depth:
            raise RuntimeError(
                f"{self._stack.path}: more than the {self._stack.depth} block calls that the first forward pass made; "
                "a model whose depth depends on its input cannot be scanned layer by layer"
            )
        self._receive(self._names[self._calls], given_state(output))
        self._calls += 1

    def _after_norm(self, norm: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self._receive(f"{self._stack.prefix}post_final_norm", output)
