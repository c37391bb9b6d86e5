"""Where a convolutional network passes feature maps on: stages in a list, or blocks in a row."""

from __future__ import annotations

from torch import nn

from fastaniso.models.watching import Chain

MAP_DIMS = 4
"""Axes of feature maps: items, channels, height, width."""


def map_chains(model: nn.Module) -> list[list[Chain]]:
    """Modules that may pass feature maps on, in ranks: a rank counts only where the ranks before it have no chain.

    First the lists of stages (ResNet and ConvNeXt of transformers), then children of one module that have children
    themselves (``layer1`` … ``layer4`` of torchvision's ResNet; the blocks in the features of an EfficientNet), then
    every layer of a ``Sequential`` (VGG). Maps may change their shape from one to the next.
    """
    modules = list(model.named_modules())
    lists = [
        Chain(path, tuple(module), dims=MAP_DIMS)
        for path, module in modules
        if isinstance(module, nn.ModuleList) and len(module) > 1
    ]
    composed = [
        Chain(path, children, dims=MAP_DIMS, some=True)
        for path, module in modules
        if not isinstance(module, nn.ModuleList) and len(children := _composed_children(module)) > 1
    ]
    rows = [
        Chain(path, tuple(module), dims=MAP_DIMS)
        for path, module in modules
        if isinstance(module, nn.Sequential) and len(module) > 1
    ]
    return [lists, composed, rows]


def _composed_children(module: nn.Module) -> tuple[nn.Module, ...]:
    return tuple(child for child in module.children() if any(child.children()))
