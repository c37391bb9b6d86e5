"""What a result was made from, for whoever wants to make it again."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from torch import nn

from fastaniso._version import __version__


def model_provenance(model: nn.Module) -> dict[str, Any]:
    """Class, revision, dtype and device of the model."""
    parameter = next(model.parameters())
    config = getattr(model, "config", None)
    return {
        "model_class": type(model).__name__,
        "revision": getattr(config, "_commit_hash", None),
        "parameters": sum(p.numel() for p in model.parameters()),
        "attention": getattr(config, "_attn_implementation", None),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "device": str(parameter.device),
    }


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"fastaniso": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow", "soundfile", "soxr"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
