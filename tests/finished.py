"""Folders of results as the commands leave them, without the pictures: small models, made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch

import fastaniso
from fastaniso.scanning.saving import save_json


def scanned(folder: Path, family: str = "bert", *, seed: int = 0, **options: Any) -> Path:
    """A scan of a random model over random words, saved to ``folder``."""
    texts = [tiny.words(20, seed=seed + i) for i in range(30)]
    result = fastaniso.scan(tiny.model(family), texts, tokenizer=tiny.tokenizer(), max_length=16, **options)
    save_json(folder, "scan.json", result.to_json(indent=2), result.states)
    return folder


def measured(folder: Path, *, shift: float = 0.5, **options: Any) -> Path:
    """A measurement of 400 normal rows about a common mean, with all pairs, saved to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = torch.randn(400, 16, generator=torch.Generator().manual_seed(0)) + shift
    np.save(folder / "rows.npy", rows.numpy())
    result = fastaniso.measure(folder / "rows.npy", pairs=True, bins=256, **options)
    save_json(folder, "measure.json", result.to_json(indent=2), result.states)
    return folder
