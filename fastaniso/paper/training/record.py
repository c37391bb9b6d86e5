"""What has been measured so far, and how it is kept so that a run that was killed goes on from it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastaniso

FORMAT_VERSION = 1


@dataclass
class Record:
    """Measurements by step. ``live`` is what the callback logged in training; ``points`` are kept for pictures."""

    steps: list[int] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)
    training_loss: list[float] = field(default_factory=list)
    held_out_loss: list[float] = field(default_factory=list)
    live: dict[str, dict[str, float]] = field(default_factory=dict)
    points: list[list[tuple[Tensor, Tensor]]] = field(default_factory=list)


def digest(told: Mapping[str, Any]) -> str:
    """A name for a run of these settings, by this version of what makes and measures it."""
    versions = {"fastaniso": fastaniso.__version__, "torch": torch.__version__, "transformers": version("transformers")}
    told = {**told, "versions": versions, "format": FORMAT_VERSION}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def save(file: Path, record: Record, **tensors: Any) -> None:
    """Write a record, and whatever is to go on beside it: all of it is there afterwards, or what was there before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    torch.save({"record": vars(record), **tensors}, temporary)
    os.replace(temporary, file)


def load(file: Path) -> tuple[Record, dict[str, Any]] | None:
    """What ``save`` wrote, on the host, or None where it has written nothing."""
    if not file.is_file():
        return None
    content = torch.load(file, map_location="cpu", weights_only=True)
    return Record(**content.pop("record")), content
