"""Checkpoints of a training that somebody else made, measured one after the other in the order of their steps."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastaniso.paper.training.probing import measure_step
from fastaniso.paper.training.record import Record, digest, load, save
from fastaniso.paper.training.sizes import ProbeSet
from fastaniso.paper.training.words import Sequences, Text, probe_sequences


def find_checkpoints(folder: Path) -> dict[int, Path]:
    """The sub-folders that hold a model, by the last number in their names (``step_1000``, ``checkpoint-1000``)."""
    found: dict[int, Path] = {}
    for inner in sorted(folder.iterdir()):
        numbers = re.findall(r"\d+", inner.name)
        if not numbers or not (inner / "config.json").is_file():
            continue
        step = int(numbers[-1])
        if step in found:
            raise ValueError(f"checkpoints: {found[step]} and {inner} are both of step {step}; take one away")
        found[step] = inner
    if not found:
        raise ValueError(
            f"checkpoints: {folder} has no checkpoint: expected sub-folders with a number in their names, such as "
            "step_1000 or checkpoint-1000, that AutoModel.from_pretrained reads (config.json and the weights)"
        )
    return dict(sorted(found.items()))


def measure_checkpoints(
    folder: Path, text: Text, probe: ProbeSet, *, states: Path, device: str, say: Callable[[str], None]
) -> tuple[str, dict[str, int], Record]:
    """A name of the model, on how much it was measured, and the measurements of all checkpoints.

    ``states`` keeps what has been measured of each, so that a run that was killed goes on with the next checkpoint, and
    one that comes later is measured alone.
    """
    found = find_checkpoints(folder)
    sequences = _sequences(folder, found, text, probe)
    told = {"text": text.digest, "probe": vars(probe), "device": device}
    record = Record()
    for number, (step, path) in enumerate(found.items(), start=1):
        file = states / f"{folder.resolve().name}-{digest({**told, 'checkpoint': _fingerprint(path)})}.pt"
        earlier = load(file)
        if earlier is None:
            say(f"{folder.name}: step {step}, {number} of {len(found)} checkpoints")
            point, vectors = measure_step(_load(path).to(device), sequences, probe.points)
            one = Record([step], [point], points=[[vectors.points(call) for call in point["calls"]]])
            save(file, one)
        else:
            one = earlier[0]
        record.steps.append(step)
        record.measured += one.measured
        record.points += one.points
    longest = sequences.ids.shape[1]
    tokens = {"sequences": len(sequences), "longest": longest, "probed_tokens": int(sequences.keep.sum())}
    return _describe(folder, next(iter(found.values()))), tokens, record


def _load(path: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(path)


def _sequences(folder: Path, found: dict[int, Path], text: Text, probe: ProbeSet) -> Sequences:
    """With the tokenizer that lies in a checkpoint, in the folder around them, or beside it."""
    from transformers import AutoConfig, AutoTokenizer

    places = [*found.values(), folder]
    with_tokenizer = [p for p in places if any((p / name).is_file() for name in ("tokenizer_config.json", "vocab.txt"))]
    if not with_tokenizer:
        raise ValueError(
            f"checkpoints: there is no tokenizer (tokenizer_config.json) in {folder} or in a checkpoint; put one there "
            "with tokenizer.save_pretrained"
        )
    tokenizer = AutoTokenizer.from_pretrained(with_tokenizer[0])
    config = AutoConfig.from_pretrained(next(iter(found.values())))
    longest = getattr(config, "max_position_embeddings", None) or probe.length
    length = min(probe.length, longest, tokenizer.model_max_length)
    return probe_sequences(tokenizer, text.training + text.held_out, probe, length=length)


def _fingerprint(path: Path) -> list[Any]:
    """Where a checkpoint is, and its files by name, size and time."""
    return [
        str(path.resolve()),
        *([f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(path.iterdir()) if f.is_file()),
    ]


def _describe(folder: Path, checkpoint: Path) -> str:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint)
    layers, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    size = f", {layers} layers of {width}" if layers and width else ""
    return f"{folder.resolve().name} ({config.model_type}{size})"
