"""Which positions of a state are measured, by family: padding, special tokens, prefix tokens and padded frames are not.

Each function takes what a batch says of its positions and the shape ``(items, positions)`` of a state, which may have
other positions than the batch has, and raises ``MaskError`` where no mask fits.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MEASURED = 0
"""The code of a measured position; code i is dropped for the reason i − 1."""

TEXT_REASONS = ("special", "padding", "over the limit")
SPECIAL, PADDING, OVER_LIMIT = 1, 2, 3


class MaskError(ValueError):
    """No mask fits the positions of a state."""


@dataclass(frozen=True)
class Mask:
    """``keep`` (items, positions), True is measured, and how many positions were dropped for each reason."""

    keep: Tensor
    dropped: Mapping[str, int]

    @property
    def kept(self) -> int:
        """Measured positions."""
        return self.keep.numel() - sum(self.dropped.values())


def all_kept(shape: tuple[int, int]) -> Mask:
    """Every position is measured."""
    return Mask(torch.ones(shape, dtype=torch.bool), {})


def coded(codes: Tensor, reasons: Sequence[str]) -> Mask:
    """The mask of codes (items, positions): ``MEASURED``, or 1 + the index of the reason."""
    counts = torch.bincount(codes.flatten().long(), minlength=len(reasons) + 1).tolist()
    return Mask(codes == MEASURED, {reason: n for reason, n in zip(reasons, counts[1:], strict=True) if n})


def token_mask(model: nn.Module, codes: Tensor, shape: tuple[int, int]) -> Mask:
    """The mask of a state of text: one position a token, or one for ``downsampling_rate`` characters (CANINE).

    ``codes`` (items, tokens) are ``MEASURED``, ``SPECIAL``, ``PADDING`` or ``OVER_LIMIT``.
    """
    if codes.shape == shape:
        return coded(codes, TEXT_REASONS)
    rate = getattr(getattr(model, "config", None), "downsampling_rate", None)
    if isinstance(rate, int) and shape == (codes.shape[0], codes.shape[1] // rate):
        return coded(_downsampled(codes, rate), TEXT_REASONS)
    raise MaskError(
        f"passes states of {shape[1]} positions for {codes.shape[1]} tokens: its positions are not the tokens, so no "
        "mask fits them"
    )


def _downsampled(codes: Tensor, rate: int) -> Tensor:
    """Codes of CANINE's molecules: position 0 is [CLS] alone, j ≥ 1 is made of characters (j − 1)·rate … j·rate − 1.

    The model attends to position j where one of the characters j·rate … (j + 1)·rate − 1 is no padding (its
    ``_downsample_attention_mask``, one place off). Measured is what is attended to and made of a measured character.
    """
    count = codes.shape[1] // rate
    whole = codes[:, : count * rate].reshape(len(codes), count, rate)
    attended = (whole != PADDING).any(2)
    made_of = torch.cat((torch.full_like(codes[:, :1], SPECIAL), whole[:, :-1].amin(2)), 1)
    return torch.where(attended, made_of, PADDING)


def frame_mask(model: nn.Module, real: Tensor, shape: tuple[int, int]) -> Mask:
    """The mask of a state of speech from ``real`` (items, samples or feature frames), nonzero where it is no padding.

    The model's own ``_get_feature_vector_attention_mask`` says how many frames a number of samples makes; without it,
    a state has as many positions as the features, or half (Whisper: every second frame).
    """
    positions = shape[1]
    lengths = getattr(model, "_get_feature_vector_attention_mask", None)
    if real.shape == shape:
        frames = real.bool()
    elif lengths is not None:
        # The encoder comes before the adapter, which has a length of its own.
        options = {"add_adapter": False} if "add_adapter" in inspect.signature(lengths).parameters else {}
        frames = lengths(positions, real.long(), **options).bool()
    elif real.shape == (shape[0], 2 * positions):
        frames = real[:, ::2].bool()
    else:
        raise MaskError(f"passes states of {positions} positions for {real.shape[1]} samples or frames: no mask fits")
    return coded(torch.where(frames, MEASURED, 1), ("padding",))


def patch_mask(model: nn.Module, pixels: tuple[int, int], shape: tuple[int, int]) -> Mask:
    """The mask of a state of images of ``pixels`` (height, width): the patches, without the tokens before them.

    Patches are counted with the configuration's ``patch_size``, and with 2, 4, 8 times it (stages of a hierarchy).
    What comes before them is a class token, then registers or a distillation token. Stages that say their ``strides``
    instead (SegFormer) overlap their patches, and have no other tokens.
    """
    config = getattr(model, "config", None)
    size: Any = getattr(config, "patch_size", None)
    strides: Any = getattr(config, "strides", None)
    if size is None and isinstance(strides, list | tuple):
        return _overlapping(pixels, strides, shape)
    if isinstance(size, int):
        size = (size, size)
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise MaskError("has no patch_size in its configuration, so its patches cannot be told from other tokens")
    known = _prefix_tokens(model)
    positions = shape[1]
    for times in (1, 2, 4, 8):
        prefix = positions - (pixels[0] // (times * size[0])) * (pixels[1] // (times * size[1]))
        names = known if times == 1 and prefix == len(known) else ()
        if prefix == len(names):
            reasons = tuple(dict.fromkeys(names))
            codes = torch.zeros(shape, dtype=torch.int8)
            for position, name in enumerate(names):
                codes[:, position] = 1 + reasons.index(name)
            return coded(codes, reasons)
    raise MaskError(
        f"passes states of {positions} positions for images of {pixels[0]} × {pixels[1]} in patches of {size[0]} × "
        f"{size[1]}: neither patches alone nor patches after {len(known)} prefix tokens"
    )


def _overlapping(pixels: tuple[int, int], strides: Sequence[int], shape: tuple[int, int]) -> Mask:
    """The mask of a stage whose patches overlap, at a padding that makes ⌈length / stride⌉ of them."""
    height, width = pixels
    for stride in strides:
        height, width = -(-height // stride), -(-width // stride)
        if height * width == shape[1]:
            return all_kept(shape)
    raise MaskError(
        f"passes states of {shape[1]} positions for images of {pixels[0]} × {pixels[1]}: no stage of strides "
        f"{', '.join(map(str, strides))} has as many"
    )


def _prefix_tokens(model: nn.Module) -> tuple[str, ...]:
    """The tokens before the patches, in order, by what the model has parameters for."""
    parameters = {name.rpartition(".")[2]: parameter for name, parameter in model.named_parameters()}
    registers = int(getattr(getattr(model, "config", None), "num_register_tokens", 0) or 0)
    named = (
        ("class token", "cls_token" in parameters or "class_embedding" in parameters),
        ("distillation token", "distillation_token" in parameters),
    )
    return (*(name for name, there in named if there), *("register tokens",) * registers)
