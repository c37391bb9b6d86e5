"""See what every attention of a model is given: the queries and keys that it scores, its mask and its scale.

Three ways lead to an attention, and all are watched while the model runs. Modules of transformers ask
``ALL_ATTENTION_FUNCTIONS`` for a function or take ``eager_attention_forward``: in the files of the model's own classes
these two names stand for ones that look first and then do what they did. Others call ``scaled_dot_product_attention``,
or multiply queries by keys and take the softmax themselves (``attention_scores``): a ``TorchFunctionMode`` sees both.
Queries and keys are final there: normed, rotated, and with as many heads of keys as the model keeps.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fastaniso.models.attention_scores import ScoreTrace, TracedScores


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """What one call of an attention was given.

    ``queries`` (B, H, T, d) and ``keys`` (B, G, S, d); ``mask`` as the model made it, None for none: (B, S) or
    broadcast to (B, H, T, S), bool (True attends) or added to the scores. ``causal`` is what the call asks for where
    the mask does not tell; ``window`` the keys that a causal query sees. ``bias`` is added to the scores by place;
    ``changes`` names what else is done to them.
    """

    module: nn.Module
    queries: Tensor
    keys: Tensor
    mask: Any
    causal: bool
    window: int | None
    scale: float
    bias: Tensor | None
    changes: tuple[str, ...]


Receive = Callable[[AttentionCall], None]


@contextmanager
def attention_watched(model: nn.Module, receive: Receive) -> Iterator[None]:
    """Call ``receive`` for every attention in forward passes of ``model`` inside the ``with``, before it is computed.

    Everything is as it was when the ``with`` ends, also by an exception. Other models and threads are not seen, nor is
    what activation checkpointing computes a second time.
    """
    flow = _Flow(receive)
    modules = set(model.modules())
    handles = [
        model.register_forward_pre_hook(flow.begin, prepend=True),
        model.register_forward_hook(flow.end, always_call=True),
    ]
    handles += [module.register_forward_pre_hook(flow.enter) for module in modules if any(module.children())]
    handles += [
        module.register_forward_hook(flow.leave, always_call=True) for module in modules if any(module.children())
    ]
    try:
        with _interfaces_watched(modules, flow), _ProductMode(flow):
            yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class _Flow:
    """Where the forward pass is: modules with children that have begun and not ended, the innermost last."""

    receive: Receive
    running: bool = False
    thread: int = 0
    inside: list[nn.Module] = field(default_factory=list)
    told: bool = False

    def begin(self, *_: object) -> None:
        self.running, self.thread, self.told = True, threading.get_ident(), False
        self.inside.clear()

    def end(self, *_: object) -> None:
        self.running = False

    def enter(self, module: nn.Module, _: object) -> None:
        self.inside.append(module)

    def leave(self, module: nn.Module, *_: object) -> None:
        # After an exception in a hook, modules may be left that never ended: everything above this one has.
        while self.inside and self.inside.pop() is not module:
            pass

    @property
    def sees(self) -> bool:
        return self.running and not self.told and threading.get_ident() == self.thread

    def tell(self, call: AttentionCall) -> None:
        self.told = True
        try:
            with torch.no_grad():
                self.receive(call)
        finally:
            self.told = False


class _ProductMode(TorchFunctionMode):
    """Sees ``scaled_dot_product_attention``, and products that end in a softmax, in this thread."""

    def __init__(self, flow: _Flow) -> None:
        super().__init__()
        self._flow = flow
        self._trace = ScoreTrace()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        flow = self._flow
        if not flow.sees or not flow.inside:
            return function(*args, **kwargs)
        if function is functional.scaled_dot_product_attention:
            flow.tell(_of_product(flow.inside[-1], *args, **kwargs))
        scores = self._trace.before(function, args, kwargs)
        if scores is not None:
            flow.tell(_of_scores(flow.inside[-1], scores))
        result = function(*args, **kwargs)
        self._trace.after(function, args, kwargs, result)
        return result


def _of_product(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionCall:
    if attn_mask is not None:
        attn_mask = attn_mask[(None,) * (4 - attn_mask.dim())]
    return AttentionCall(
        module=module,
        queries=query.detach(),
        # Causal products are aligned at the first key: later keys are seen by no query.
        keys=key[..., : query.shape[-2], :].detach() if is_causal else key.detach(),
        mask=attn_mask,
        causal=is_causal,
        window=None,
        scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
        bias=None,
        changes=(),
    )


def _of_interface(
    module: nn.Module, query: Tensor, key: Tensor, mask: Any, *, eager: bool, options: dict[str, Any]
) -> AttentionCall:
    causal = options.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", True)
    causal = bool(causal) and not (eager and mask is None)  # eager attention masks what it is told to and nothing else
    scale = options.get("scaling")
    changes = {
        "a soft cap": options.get("softcap") is not None,
        "a learned sink": options.get("s_aux") is not None or getattr(module, "sinks", None) is not None,
    }
    return AttentionCall(
        module=module,
        queries=query.detach(),
        keys=key.detach(),
        mask=mask,
        causal=causal,
        window=options.get("sliding_window"),
        scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
        bias=options.get("position_bias"),
        changes=tuple(name for name, made in changes.items() if made),
    )


def _of_scores(module: nn.Module, scores: TracedScores) -> AttentionCall:
    return AttentionCall(
        module=module,
        queries=scores.queries,
        keys=scores.keys,
        mask=None if scores.added is None else scores.added[(None,) * (4 - scores.added.dim())],
        causal=scores.added is not None and bool(getattr(module, "is_decoder", False)),
        window=None,
        scale=scores.scale,
        bias=None,
        changes=(),
    )


_INTERFACE, _EAGER = "ALL_ATTENTION_FUNCTIONS", "eager_attention_forward"
_LOCK = threading.Lock()
_FLOWS: WeakKeyDictionary[nn.Module, tuple[_Flow, ...]] = WeakKeyDictionary()
"""Who watches a module: the names below are shared by all models of a file."""
_ORIGINALS: dict[str, tuple[int, dict[str, Any]]] = {}
"""By file: how often it is watched, and what its names stood for before."""


@contextmanager
def _interfaces_watched(modules: set[nn.Module], flow: _Flow) -> Iterator[None]:
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
            flow.tell(_of_interface(module, query, key, attention_mask, eager=self._eager, options=options))
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
