"""Probes in training: callbacks for Hugging Face and Lightning, a torchmetrics metric, plain loops, and loggers.

Each name imports what it needs on first use, and says what to install where that is missing.
"""

from importlib import import_module
from typing import Any

__all__ = [
    "AnisotropyMetric",
    "CSVLogger",
    "JSONLLogger",
    "LightningProbe",
    "Logger",
    "TensorBoardLogger",
    "TrainerProbe",
    "WandbLogger",
    "Watch",
]

_ROOMS = {
    "AnisotropyMetric": "metric",
    "CSVLogger": "loggers",
    "JSONLLogger": "loggers",
    "LightningProbe": "lightning",
    "Logger": "loggers",
    "TensorBoardLogger": "loggers",
    "TrainerProbe": "huggingface",
    "WandbLogger": "loggers",
    "Watch": "watch",
}


def __getattr__(name: str) -> Any:
    """The name from its room, imported on first use."""
    if name in _ROOMS:
        return getattr(import_module(f"fastaniso.integrations.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'fastaniso.integrations' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return __all__
