"""See every attention of a model while it runs, in whichever way it is computed.

Modules of transformers ask for attention functions (``attention_interfaces``). Others call torch's
``scaled_dot_product_attention``, are torch's own (``attention_multi_head``), or multiply queries by keys and take the
softmax themselves (``attention_scores``): these a ``TorchFunctionMode`` sees.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fastaniso.models.attention.calls import AttentionCall, of_multi_head, of_product, of_scores
from fastaniso.models.attention.interfaces import interfaces_watched
from fastaniso.models.attention.multi_head import multi_head
from fastaniso.models.attention.scores import ScoreTrace

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
        with interfaces_watched(modules, flow), _ProductMode(flow):
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
            flow.tell(of_product(flow.inside[-1], *args, **kwargs))
        elif function is functional.multi_head_attention_forward:
            flow.tell(of_multi_head(flow.inside[-1], multi_head(args, kwargs)))
        scores = self._trace.before(function, args, kwargs)
        if scores is not None:
            flow.tell(of_scores(flow.inside[-1], scores))
        result = function(*args, **kwargs)
        self._trace.after(function, args, kwargs, result)
        return result
