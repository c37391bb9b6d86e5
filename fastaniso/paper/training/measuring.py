"""The whole experiment: what is trained or read, and its measurements as plain JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from fastaniso.paper.options import Options
from fastaniso.paper.training.checkpoints import measure_checkpoints
from fastaniso.paper.training.kinds import KINDS
from fastaniso.paper.training.loop import Training
from fastaniso.paper.training.record import Record
from fastaniso.paper.training.sizes import BUDGETS, CHECKPOINT_PROBES
from fastaniso.paper.training.vectors import projected
from fastaniso.paper.training.words import Text, read_text

DIGITS = 6
_MOST_PICTURES = 5
_LEFT_OUT = ("sites", "layers", "calls", "dims", "causal")
"""What is the same at all steps, and is told once."""


def measure(options: Options) -> dict[str, Any]:
    """Train, or read the checkpoints that were given; everything that is told follows from what this gives."""
    text = read_text(options.text)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    measured = _checkpoints(options, text, device) if options.checkpoints else _trainings(options, text, device)
    return {"text": {"files": list(text.files), "bytes": text.size}, **measured}


def _trainings(options: Options, text: Text, device: str) -> dict[str, Any]:
    budget = BUDGETS[options.size]
    runs: list[dict[str, Any]] = []
    projections: list[dict[str, Any]] = []
    setting: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        training = Training(kind, budget, text, options.out / "training", device)
        model = f"{kind.title} ({budget.layers} layers of {budget.width}, {training.steps} steps)"
        setting[model] = {
            "family": kind.family,
            "vocabulary": len(training.tokenizer),
            "tokens": len(training.ids),
            "probed_tokens": int(training.sequences.keep.sum()),
        }
        for seed in range(options.seeds or budget.seeds):
            record = training.run(seed, options.say, keep_points=seed == 0)
            losses = {
                "training": _rounded(record.training_loss),
                "held_out": _rounded(record.held_out_loss),
                "baseline": _rounded(training.baseline()),
            }
            runs.append({"model": model, "seed": seed, "loss": losses, **_run(record)})
            if seed == 0:
                projections += _projections(model, record)
    return {"source": "training", "budget": asdict(budget), "models": setting, "runs": runs, "projections": projections}


def _checkpoints(options: Options, text: Text, device: str) -> dict[str, Any]:
    probe = CHECKPOINT_PROBES[options.size]
    runs: list[dict[str, Any]] = []
    projections: list[dict[str, Any]] = []
    setting: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for folder in options.checkpoints:
        states = options.out / "training" / "checkpoints"
        try:
            model, tokens, record = measure_checkpoints(
                folder, text, probe, states=states, device=device, say=options.say
            )
        except (OSError, ValueError) as error:
            skipped[str(folder)] = str(error)
            continue
        setting[model] = {"checkpoints": len(record.steps), **tokens}
        runs.append({"model": model, "seed": None, "loss": None, **_run(record)})
        projections += _projections(model, record)
    if not runs:
        raise ValueError("; ".join(skipped.values()))
    return {
        "source": "checkpoints",
        "probe": asdict(probe),
        "models": setting,
        "runs": runs,
        "projections": projections,
        "skipped": skipped,
    }


def _run(record: Record) -> dict[str, Any]:
    first = record.measured[0]
    return {
        "steps": record.steps,
        "sites": first["sites"],
        "layers": first["layers"],
        "dims": first["dims"],
        "causal": first["causal"],
        "live": {step: {site: _rounded(value) for site, value in sites.items()} for step, sites in record.live.items()},
        **{name: [_rounded(point[name]) for point in record.measured] for name in first if name not in _LEFT_OUT},
    }


def _projections(model: str, record: Record) -> Iterable[dict[str, Any]]:
    """Of the heads with the largest and the least cos(Q̄, K̄) at the end, at a few of the steps."""
    count = len(record.steps)
    shown = sorted({round(i * (count - 1) / (_MOST_PICTURES - 1)) for i in range(_MOST_PICTURES)})
    cosines = record.measured[-1]["cosine"]
    places = [(value, layer, head) for layer, heads in enumerate(cosines) for head, value in enumerate(heads)]
    for value, layer, head in dict.fromkeys((max(places), min(places))):
        parts = [_of_head(record.points[index][layer], head, len(cosines[layer])) for index in shown]
        pairs, share = projected(parts)
        yield {
            "model": model,
            "layer": record.measured[0]["layers"][layer],
            "head": head,
            "cosine": _rounded(value),
            "share": _rounded(share),
            "steps": [record.steps[index] for index in shown],
            "queries": [_rounded(queries.T.tolist()) for queries, _ in pairs],
            "keys": [_rounded(keys.T.tolist()) for _, keys in pairs],
        }


def _of_head(points: tuple[Tensor, Tensor], head: int, heads: int) -> tuple[Tensor, Tensor]:
    queries, keys = points
    return queries[:, head], keys[:, head * keys.shape[1] // heads]


def _rounded(value: Any) -> Any:
    """Six digits: more than a reader needs, and the file stays small; None for what is not defined."""
    if isinstance(value, Sequence):
        return [_rounded(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None
