"""Look at what transformers' modules give their attention functions.

They ask ``ALL_ATTENTION_FUNCTIONS`` for a function, or take their file's ``eager_attention_forward``. In the files of
the watched model's classes these two names stand for ones that look first and then do what they did; all models of a
file share them, so a module tells its own watchers only.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from fastaniso.models.attention.calls import AttentionCall, of_interface


class Flow(Protocol):
    """A forward pass that is watched."""

    told: bool
    """Whether the attention that is being computed has been told already."""

    @property
    def sees(self) -> bool:
        """Whether what is computed now is to be told."""

    def tell(self, call: AttentionCall) -> None:
        """Tell a call."""


_INTERFACE, _EAGER = "ALL_ATTENTION_FUNCTIONS", "eager_attention_forward"
_LOCK = threading.Lock()
_FLOWS: WeakKeyDictionary[nn.Module, tuple[Flow, ...]] = WeakKeyDictionary()
"""Who watches a module: the names below are shared by all models of a file."""
_ORIGINALS: dict[str, tuple[int, dict[str, Any]]] = {}
"""By file: how often it is watched, and what its names stood for before."""


@contextmanager
def interfaces_watched(modules: set[nn.Module], flow: Flow) -> Iterator[None]:
    """Tell ``flow`` what the modules give their attention functions, inside the ``with``."""
    files = {cls.__module__ for module in modules for cls in type(module).__mro__}
    watched = [file for name in sorted(files) if (file := sys.modules.get(name)) and hasattr(file, _INTERFACE)]
    with _LOCK:
        for module in modules:
            _FLOWS[module] = (*_FLOWS.get(module, ()), flow)
        for file in watched:
            _watch(file)
    try:
        yield
    finally:
        with _LOCK:
            for file in watched:
                _unwatch(file)
            for module in modules:
                _FLOWS[module] = tuple(other for other in _FLOWS[module] if other is not flow)


def _watch(file: ModuleType) -> None:
    count, originals = _ORIGINALS.get(file.__name__, (0, {}))
    if not count:
        originals = {name: getattr(file, name) for name in (_INTERFACE, _EAGER) if hasattr(file, name)}
        setattr(file, _INTERFACE, _LookingInterface(originals[_INTERFACE]))
        if _EAGER in originals:
            setattr(file, _EAGER, _Looking(originals[_EAGER], eager=True))
    _ORIGINALS[file.__name__] = (count + 1, originals)


def _unwatch(file: ModuleType) -> None:
    count, originals = _ORIGINALS.pop(file.__name__)
    if count > 1:
        _ORIGINALS[file.__name__] = (count - 1, originals)
        return
    for name, original in originals.items():
        setattr(file, name, original)


class _Looking:
    """An attention function that tells what it is given, and then does what it did."""

    def __init__(self, function: Callable[..., Any], *, eager: bool = False) -> None:
        self._function = function
        self._eager = eager

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **options: Any
    ) -> Any:
        flows = [flow for flow in _FLOWS.get(module, ()) if flow.sees]
        for flow in flows:
            flow.tell(of_interface(module, query, key, attention_mask, eager=self._eager, options=options))
            flow.told = True  # the product that the function may end in is the same attention
        try:
            return self._function(module, query, key, value, attention_mask, **options)
        finally:
            for flow in flows:
                flow.told = False


class _LookingInterface:
    """``ALL_ATTENTION_FUNCTIONS`` as a file sees it while its models are watched."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __getitem__(self, name: str) -> Any:
        return _Looking(self._original[name])

    def __contains__(self, name: object) -> bool:
        return name in self._original

    def __iter__(self) -> Iterator[str]:
        return iter(self._original)

    def __len__(self) -> int:
        return len(self._original)

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self._original else default

    def get_interface(self, implementation: str, default: Callable[..., Any]) -> Any:
        function = self._original.get_interface(implementation, default)
        return function if isinstance(function, _Looking) else _Looking(function)
