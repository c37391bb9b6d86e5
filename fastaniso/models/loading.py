"""Load a model, and what makes its inputs, from a folder or a hub id, running no code but transformers' own."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from fastaniso.models.image_processor import TorchImageProcessor

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


class ModelNotFoundError(LookupError):
    """There is no such folder, and no such model that the hub or its cache could give."""


def load_model(
    name: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> nn.Module:
    """The model in ``.eval()``; weights are read as safetensors or with ``weights_only=True``.

    ``dtype`` is the dtype of the weights and so of the hidden states: float32 unless said otherwise, ``"auto"`` takes
    that of the checkpoint. ``device`` is a GPU where there is one, unless said otherwise.
    """
    wanted = as_dtype(dtype)
    target = torch.device(device) if device is not None else default_device()
    model: nn.Module = _pretrained("AutoModel", name, dtype=wanted, weights_only=True)
    return model.eval().to(target)


def load_tokenizer(name: str | os.PathLike[str]) -> Any:
    """The tokenizer of a model."""
    return _pretrained("AutoTokenizer", name)


def load_feature_extractor(name: str | os.PathLike[str]) -> Any:
    """What makes waveforms or spectrograms ready for a model of sounds."""
    return _pretrained("AutoFeatureExtractor", name)


def load_image_processor(name: str | os.PathLike[str]) -> Any:
    """What resizes, crops and normalises images for a model.

    transformers has some processors for torchvision alone. Where that is not installed, their settings are carried
    out with torch, and ``notes`` of what comes back says so.
    """
    from transformers.models.auto.image_processing_auto import get_image_processor_config

    settings = get_image_processor_config(os.fspath(name))
    if not settings:
        raise ModelNotFoundError(
            f"processor: {os.fspath(name)!r} holds no preprocessor_config.json; give processor=, such as "
            "AutoImageProcessor's, or images that are ready as batches: dict(pixel_values=...)"
        )
    try:
        return _pretrained("AutoImageProcessor", name)
    except (ImportError, ValueError) as error:
        return TorchImageProcessor(settings, reason=_first_line(error))


def default_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | str:
    """A torch dtype, or ``"auto"``."""
    if dtype is None:
        return torch.float32
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of auto, {', '.join(DTYPES)}, got {dtype!r}")
    return DTYPES[dtype]


def _pretrained(kind: str, name: str | os.PathLike[str], **options: Any) -> Any:
    name = os.fspath(name)
    transformers = _transformers()
    if not Path(name).is_dir() and not _HUB_ID.fullmatch(name):
        raise ModelNotFoundError(f"model: there is no folder {name!r}, and it cannot be a hub id such as 'owner/name'")
    try:
        return getattr(transformers, kind).from_pretrained(name, trust_remote_code=False, **options)
    except OSError as error:
        if Path(name).is_dir() and (Path(name) / "config.json").exists():
            raise
        raise ModelNotFoundError(
            f"model: {name!r} is neither a folder with a model here nor a model that the hub or its cache could give "
            f"({_first_line(error)})"
        ) from error


def _transformers() -> ModuleType:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "scanning a model needs the package transformers, which is not installed: pip install 'fastaniso[hf]'",
            name="transformers",
        ) from error
    return transformers


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200]
