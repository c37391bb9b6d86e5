"""Watch one forward pass: which modules pass one state on to each other. No state is kept alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Chain:
    """Modules that may pass one state on, and what a watched pass showed of it."""

    def __init__(self, path: str, candidates: tuple[nn.Module, ...], *, dims: int, some: bool = False) -> None:
        """``dims`` is the number of axes of a state; with ``some``, what takes or gives none is no member."""
        self.path = path
        self.candidates = candidates
        self.members: list[nn.Module] = []
        self.dims = dims
        self._some = some
        self.calls = 0
        self.widest = 0
        self.shape: tuple[int, ...] = ()
        self.keeps_shape = True
        self.norms: list[nn.Module] = []
        self._passed_on = 0
        self._broken = False
        self._given: _Seen | None = None

    @property
    def is_one(self) -> bool:
        """Every call took and gave a state, and at least half of the calls took what the call before gave.

        Half, because some models change the state between two blocks (DeBERTa's convolution after the first).
        """
        return not self._broken and self.calls > 0 and 2 * self._passed_on >= self.calls - 1

    def record(self, module: nn.Module, taken: Tensor | None, given: Any) -> None:
        """One call of a candidate."""
        if taken is None or not is_state(given, self.dims):
            self._broken = self._broken or not self._some
            return
        self.members.append(module)
        self._passed_on += self._given is not None and self._given.is_(taken)
        self.keeps_shape = self.keeps_shape and taken.shape == given.shape
        self.shape = tuple(given.shape)
        width = 1 if self.dims == 4 else 2
        self.widest = max(self.widest, taken.shape[width], given.shape[width])
        self.calls += 1
        self._given = _Seen(given)
        self.norms.clear()

    def record_norm(self, norm: nn.Module, taken: Tensor | None) -> None:
        """A norm that took what the last call gave is the final norm, unless further calls come."""
        if taken is not None and self._given is not None and self._given.is_(taken):
            self.norms.append(norm)


class _Seen:
    """A state to know again without keeping it: an address alone may be used twice."""

    def __init__(self, state: Tensor) -> None:
        self._state = weakref.ref(state)
        self._place = (state.data_ptr(), state.shape)

    def is_(self, state: Tensor) -> bool:
        return self._state() is not None and self._place == (state.data_ptr(), state.shape)


@contextmanager
def watched(model: nn.Module, chains: Sequence[Chain]) -> Iterator[None]:
    """Record the calls of all members of ``chains``, and of the norms, in forward passes inside the ``with``."""
    handles: list[Any] = []
    try:
        for chain in chains:
            for member in dict.fromkeys(chain.candidates):
                handles.append(member.register_forward_hook(_recorder(chain), with_kwargs=True))
        for module in model.modules():
            if "norm" in type(module).__name__.lower():
                handles.append(module.register_forward_hook(_norm_recorder(chains), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def given_state(output: Any) -> Any:
    """The hidden state that a block gave: a tensor (transformers 5), or the first of a tuple (transformers 4)."""
    return output[0] if isinstance(output, tuple) and output else output


def taken_state(args: tuple[Any, ...], kwargs: dict[str, Any], dims: int = 3) -> Tensor | None:
    """The hidden state that a module took: its first floating-point tensor of ``dims`` axes."""
    for value in (*args, *kwargs.values()):
        if is_state(value, dims):
            assert isinstance(value, Tensor)
            return value
    return None


def is_state(value: Any, dims: int) -> bool:
    """Whether ``value`` is a floating-point tensor of so many axes."""
    return isinstance(value, Tensor) and value.dim() == dims and value.is_floating_point()


def _recorder(chain: Chain) -> Callable[..., None]:
    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        chain.record(module, taken_state(args, kwargs, chain.dims), given_state(output))

    return record


def _norm_recorder(chains: Sequence[Chain]) -> Callable[..., None]:
    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        for chain in chains:
            chain.record_norm(module, taken_state(args, kwargs, chain.dims))

    return record
