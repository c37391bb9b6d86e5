"""What tells that a scan goes on with the data and the weights that it began with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastaniso.sources import Images, Sounds
from fastaniso.sources.files import as_paths
from fastaniso.sources.source import file_fingerprint

_NUMBERS = 64


def fingerprint_of_data(data: Any, *, results: Path) -> list[Any]:
    """Names, sizes and times of files; ``ValueError`` for data in memory, which nothing tells from other data.

    What is in the folder of the ``results``, which may lie among the data, changes and is none of them.
    """
    paths: Sequence[Path] = data.paths if isinstance(data, Images | Sounds) else as_paths(data)
    if not paths:
        raise ValueError("resume: data in memory cannot be told from other data; pass paths, or leave resume out")
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return [file_fingerprint(file) for file in files if file.is_file() and not file.is_relative_to(results)]


def fingerprint_of_weights(network: nn.Module) -> str:
    """A digest of the first numbers of each parameter, so that another checkpoint of one model is another."""
    digest = hashlib.sha256()
    for name, parameter in network.named_parameters():
        first = parameter.detach().flatten()[:_NUMBERS].to("cpu", torch.float64)
        digest.update(name.encode())
        digest.update(first.numpy().tobytes())
    return digest.hexdigest()
