"""Follow scores that a module computes by itself: a product of queries and keys, scaled, masked, and put to a softmax.

Each function that torch is asked for is looked at. Between a product and its softmax only what keeps the scores in
sight is known: a number that multiplies or divides them, what is added, what is hidden, another dtype, another view.
Whatever else is done to them ends the trace, and the attention is not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

BLOCKED = -1000.0
"""What is added to a score at most, or put in its place, to hide its key: models take from −10⁴ down to −∞."""


@dataclass(frozen=True, eq=False)
class TracedScores:
    """``tensor`` is ``scale``·queries·keys + ``added`` (None for nothing); queries (…, T, d), keys (…, S, d)."""

    tensor: Tensor
    queries: Tensor
    keys: Tensor
    scale: float
    added: Tensor | None

    @property
    def is_by_heads(self) -> bool:
        """Whether sequences and heads are axes of their own, as an attention needs."""
        return self.queries.dim() == self.keys.dim() == 4


class ScoreTrace:
    """The last product that was seen, and what became of it: it is held until its softmax or the next product."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._scores: TracedScores | None = None

    def clear(self) -> None:
        """Forget what was seen."""
        self._scores = None

    def before(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TracedScores | None:
        """The scores that ``function`` is about to take the softmax of over the keys, if they were followed."""
        scores = self._scores
        if scores is None or _name(function) != "softmax" or not args or args[0] is not scores.tensor:
            return None
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        self.clear()
        return scores if scores.is_by_heads and dim in (-1, scores.tensor.dim() - 1) else None

    def after(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Take what ``function`` made of its arguments."""
        name = _name(function)
        if name in _PRODUCTS:
            self._scores = _PRODUCTS[name](args, kwargs, result)
            return
        step = _STEPS.get(name)
        scores = self._scores
        if scores is None or not any(value is scores.tensor for value in (*args, *kwargs.values())):
            return
        if step is None:
            # What is made of the scores is another tensor; but in place they would be others by the same name.
            if result is scores.tensor or _name(function) == "setitem" or "out" in kwargs:
                self.clear()
            return
        others = [arg for arg in args if arg is not scores.tensor]
        followed = step(scores, others, kwargs, result)
        self._scores = None if followed is None else replace(followed, tensor=result)


def _name(function: Any) -> str:
    name: str = getattr(function, "__name__", "")
    return name.strip("_").removesuffix("_") if name.startswith("__") else name.removesuffix("_")


def _product(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> TracedScores | None:
    if len(args) != 2 or not all(isinstance(arg, Tensor) and arg.dim() in (3, 4) for arg in args):
        return None
    queries, turned = args
    return TracedScores(result, queries.detach(), turned.detach().transpose(-1, -2), 1.0, None)


def _added_product(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> TracedScores | None:
    """``baddbmm``: beta·input + alpha·batch1·batch2."""
    named = dict(zip(("input", "batch1", "batch2"), args, strict=False)) | kwargs
    product = _product((named["batch1"], named["batch2"]), {}, result)
    if product is None:
        return None
    beta = float(named.get("beta", 1))
    added = None if beta == 0 else named["input"].detach() * beta
    return replace(product, scale=float(named.get("alpha", 1)), added=added)


def _scaled(scores: TracedScores, others: list[Any], kwargs: dict[str, Any], result: Any) -> TracedScores | None:
    return _times(scores, others, lambda factor: factor)


def _divided(scores: TracedScores, others: list[Any], kwargs: dict[str, Any], result: Any) -> TracedScores | None:
    return _times(scores, others, lambda factor: 1 / factor)


def _times(scores: TracedScores, others: list[Any], factor: Callable[[float], float]) -> TracedScores | None:
    if len(others) != 1 or (isinstance(others[0], Tensor) and (others[0].dim() or not others[0].is_cpu)):
        return None
    by = factor(float(others[0]))
    return replace(scores, scale=scores.scale * by, added=None if scores.added is None else scores.added * by)


def _plus(scores: TracedScores, others: list[Any], kwargs: dict[str, Any], result: Any) -> TracedScores | None:
    if len(others) != 1 or not isinstance(others[0], Tensor) or kwargs:
        return None
    more = others[0].detach()
    return replace(scores, added=more if scores.added is None else scores.added + more)


def _hidden(scores: TracedScores, others: list[Any], kwargs: dict[str, Any], result: Any) -> TracedScores | None:
    """``masked_fill(mask, value)``."""
    mask, value = [*others, *kwargs.values()]
    return _hide(scores, mask, value)


def _chosen(scores: TracedScores, others: list[Any], kwargs: dict[str, Any], result: Any) -> TracedScores | None:
    """``where(mask, scores, value)``."""
    mask, value = [*others, *kwargs.values()]
    return _hide(scores, ~mask, value)


def _hide(scores: TracedScores, mask: Tensor, value: Any) -> TracedScores | None:
    """A value in the place of a score is as good as −∞, or nothing that can be followed."""
    if isinstance(value, Tensor) and not (value.is_cpu and value.numel() == 1):
        return None
    if float(value) > BLOCKED:
        return None
    hidden = torch.zeros_like(mask, dtype=scores.queries.dtype).masked_fill(mask, -torch.inf)
    return replace(scores, added=hidden if scores.added is None else scores.added + hidden)


def _same(scores: TracedScores, others: list[Any], kwargs: dict[str, Any], result: Any) -> TracedScores | None:
    return scores if isinstance(result, Tensor) else None


def _viewed(scores: TracedScores, others: list[Any], kwargs: dict[str, Any], result: Any) -> TracedScores | None:
    """(B·H, T, S) as (B, H, T, S), or back."""
    *leading, queries, keys = result.shape
    if (queries, keys) != tuple(scores.tensor.shape[-2:]):
        return None
    added = scores.added
    if added is not None:
        added = added.expand(scores.tensor.shape).reshape(result.shape)
    return replace(
        scores,
        queries=scores.queries.reshape(*leading, *scores.queries.shape[-2:]),
        keys=scores.keys.reshape(*leading, *scores.keys.shape[-2:]),
        added=added,
    )


_PRODUCTS = {"matmul": _product, "bmm": _product, "baddbmm": _added_product}
_STEPS = {
    **dict.fromkeys(("mul", "rmul", "imul", "multiply"), _scaled),
    **dict.fromkeys(("div", "truediv", "itruediv", "true_divide", "divide"), _divided),
    **dict.fromkeys(("add", "radd", "iadd"), _plus),
    "masked_fill": _hidden,
    "where": _chosen,
    **dict.fromkeys(("to", "float", "double", "half", "bfloat16", "type_as", "contiguous"), _same),
    **dict.fromkeys(("view", "reshape"), _viewed),
}
