"""The settings of an image processor carried out with torch, for processors that transformers has no code for here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

_MODES = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}
"""Pillow's codes of filters, as the settings have them, that torch has too."""

_KNOWN = frozenset({"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"})


class TorchImageProcessor:
    """Rescales, resizes (antialiased), crops and normalises one RGB image of Pillow's, in float32.

    Called as transformers' own processors are; ``notes`` says why it stands in for one.
    """

    def __init__(self, settings: Mapping[str, Any], *, reason: str) -> None:
        """Take the settings of ``preprocessor_config.json``; what torch cannot do as they ask is refused."""
        asked = {name for name, value in settings.items() if name.startswith("do_") and value}
        resample = int(settings.get("resample") or 0) if settings.get("resample") is not None else 2
        if asked - _KNOWN or resample not in _MODES:
            what = ", ".join(sorted(asked - _KNOWN)) or f"resample={resample}"
            raise ValueError(f"processor: {what} needs the processor of transformers, which cannot load: {reason}")
        self._settings = settings
        self._mode = _MODES[resample]
        self.notes = [
            f"images were prepared with torch by the settings of the image processor, which cannot load: {reason}"
        ]

    def __call__(self, *, images: Any, return_tensors: str = "pt") -> dict[str, Tensor]:
        """``pixel_values`` (1, 3, height, width)."""
        settings = self._settings
        # A copy: torch warns of memory that it may not write to.
        pixels = torch.from_numpy(np.array(images)).permute(2, 0, 1)[None].float()
        if settings.get("do_rescale", True):
            pixels = pixels * settings.get("rescale_factor", 1 / 255)
        if settings.get("do_resize", True):
            options: dict[str, Any] = {} if self._mode == "nearest-exact" else {"antialias": True}
            height, width = self._resized(pixels.shape[-2], pixels.shape[-1])
            pixels = interpolate(pixels, (height, width), mode=self._mode, **options)
        if settings.get("do_center_crop", False):
            pixels = _center_crop(pixels, *_height_width(settings["crop_size"]))
        if settings.get("do_normalize", True):
            mean, std = (torch.tensor(settings[name]).view(1, -1, 1, 1) for name in ("image_mean", "image_std"))
            pixels = (pixels - mean) / std
        return {"pixel_values": pixels}

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        size = self._settings["size"]
        if isinstance(size, Mapping) and "shortest_edge" in size:
            edge = int(size["shortest_edge"])
            short, long = sorted((height, width))
            other = int(edge * long / short)
            return (edge, other) if height <= width else (other, edge)
        return _height_width(size)


def _height_width(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        return int(size["height"]), int(size["width"])
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _center_crop(pixels: Tensor, height: int, width: int) -> Tensor:
    top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
    if min(top, left) < 0:
        raise ValueError(f"an image of {tuple(pixels.shape[-2:])} cannot be cropped to {(height, width)}")
    return pixels[..., top : top + height, left : left + width]
