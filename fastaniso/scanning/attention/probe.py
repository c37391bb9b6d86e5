"""Watch the attentions of any model live, in training or in use."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor, nn

from fastaniso.scanning.attention.positions import GivenPositions
from fastaniso.scanning.attention.reader import AttentionReader
from fastaniso.scanning.attention.result import AttentionResult

_GIVEN = {"decoder_attention_mask": "decoder", "attention_mask": "encoder"}
"""Masks that models are called with, and the part of a module's path that says whose positions they are."""


def probe_attention(
    model: nn.Module,
    *,
    backend: str = "auto",
    invalid: str = "raise",
    bins: int = 512,
    score_range: tuple[float, float] = (-32.0, 32.0),
    each: Callable[[str, Tensor, Tensor], None] | None = None,
) -> AttentionProbe:
    """Measure queries, keys and the softmax of every attention of ``model`` in the forward passes inside a ``with``.

    ::

        with fastaniso.probe_attention(model) as probe:
            model(**batch)
        print(probe.results())

    Each call of an attention is reduced to sums by head at once, on its device: nothing of T×T is kept. Measured are
    the positions that ``probe.mask(keep)`` or else the ``attention_mask`` of the call keeps, and all that are no
    padding where there is neither. Sites are the paths of the modules. The device is waited for in the first pass of
    the model and where sequences are longer than before, to read the pattern of the masks, and in ``results()``.

    Seen are attentions that call transformers' attention functions or torch's ``scaled_dot_product_attention``.

    Args:
        model: Any module; hooks and all else are gone when the ``with`` ends, also by an exception.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" in ``results()`` if a query or key is zero or holds NaN or Inf, "omit" to leave it out.
        bins: Bins of the histogram of scores.
        score_range: Its range; scores below and above are counted.
        each: Told every call that is measured, if the vectors themselves are wanted: the path of its module, its
            queries (B, H, T, d) and its keys (B, G, S, d) as attended, detached, on their device, at all positions.
    """
    reader = AttentionReader(model, backend=backend, invalid=invalid, bins=bins, score_range=score_range, each=each)
    return AttentionProbe(reader)


class AttentionProbe:
    """What ``probe_attention`` gives: sums that grow with each forward pass inside the ``with``."""

    def __init__(self, reader: AttentionReader) -> None:
        """With the reader of the model."""
        self._reader = reader
        self._attached = ExitStack()
        self._own: Mapping[str, Tensor] | None = None

    def __enter__(self) -> Self:
        """Begin to watch; sums go on from those before."""
        with ExitStack() as stack:
            model = self._reader.model
            stack.callback(model.register_forward_pre_hook(self._begin, with_kwargs=True).remove)
            stack.enter_context(self._reader.attached())
            self._attached = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the model as it was."""
        self._attached.close()

    def mask(self, keep: Tensor | Mapping[str, Tensor] | None) -> None:
        """Measure where ``keep`` (sequences, positions) is True, until another mask is given; None: the model's own.

        A model of several stacks takes a mask for each: ``{"encoder": ..., "decoder": ...}``, by a part of the paths.
        """
        masks = keep if isinstance(keep, Mapping) or keep is None else {"": keep}
        for part, mask in (masks or {}).items():
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() != 2:
                got = f"{mask.dtype}{tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
                raise TypeError(f"mask: expected bool (sequences, positions){f' for {part!r}' * bool(part)}, got {got}")
        self._own = masks

    def results(self) -> AttentionResult:
        """All statistics so far; waits for the device."""
        self._reader.check()
        return self._reader.result()

    def reset(self) -> None:
        """Forget every pass; the masks stay."""
        self._reader.reset()

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._reader.begin(GivenPositions(_given(model, args, kwargs) if self._own is None else self._own))


def _given(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """The masks of positions among a call's arguments."""
    names = list(inspect.signature(model.forward).parameters)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    two = "decoder_attention_mask" in names
    masks = {part if two else "": given.get(name) for name, part in _GIVEN.items()}
    return {part: mask.detach() != 0 for part, mask in masks.items() if isinstance(mask, Tensor) and mask.dim() == 2}
