"""The hidden state in what a module gives, with its rows along the last axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

CHANNELS = (None, "first", "last")


def check_channels(channels: Any) -> None:
    """Refuse anything but None, "first" and "last"."""
    if channels not in CHANNELS:
        raise ValueError(f"channels: expected None, 'first' or 'last', got {channels!r}")


def hidden_state(output: Any, channels: str | None, select: Callable[[Any], Any] | None) -> Tensor:
    """``[..., d]`` of an output: a tensor, the first of a tuple or list, ``last_hidden_state``, or ``select(output)``.

    A map ``(B, C, ...)`` with ``channels="first"`` becomes ``(B, ..., C)``. Rows not side by side are copied.
    """
    state = _state_in(output) if select is None else select(output)
    if not isinstance(state, Tensor) or not state.is_floating_point() or state.dim() < 2:
        raise ValueError(
            f"expected a hidden state [..., d] of floats, or a tuple that begins with one, got {_words(state)}; "
            "leave the site out, or pass select=, a function that takes the output and gives the hidden state"
        )
    if state.is_nested or state.layout != torch.strided:
        kind = "nested" if state.is_nested else str(state.layout)
        raise ValueError(f"expected a dense tensor, got a {kind} one; make the model give padded ones, with a mask")
    state = state.detach()
    if channels == "first" and state.dim() > 2:
        state = state.movedim(1, -1)
    elif channels is None and state.dim() > 3:
        raise ValueError(
            f"a map of shape {tuple(state.shape)} may have its channels on any axis; pass channels='first' for "
            "(B, C, H, W) or channels='last' for (B, H, W, C)"
        )
    side_by_side = state.stride(-1) == 1 and state.dim() <= 3
    return state if side_by_side else state.contiguous()


def _state_in(output: Any) -> Any:
    if isinstance(output, Mapping):
        return output.get("last_hidden_state", output)
    if isinstance(output, tuple | list):
        return output[0] if output else output
    return getattr(output, "last_hidden_state", output)


def _words(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} of {', '.join(map(str, value)) or 'nothing'}"
    return f"a {type(value).__name__}"
