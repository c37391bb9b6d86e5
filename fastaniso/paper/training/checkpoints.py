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

    ``states`` keeps what has been measured, so that a run that was killed goes on with the next checkpoint.
    """
    found = find_checkpoints(folder)
    sequences = _sequences(folder, found, text, probe)
    told = {str(step): _fingerprint(path) for step, path in found.items()}
    name = digest({"checkpoints": told, "text": text.digest, "probe": vars(probe), "device": device})
    file = states / f"{folder.resolve().name}-{name}.pt"
    earlier = load(file)
    record = Record() if earlier is None else earlier[0]
    for step, path in found.items():
        if step in record.steps:
            continue
        say(f"{folder.name}: step {step}, {len(record.steps) + 1} of {len(found)} checkpoints")
        network = _load(path).to(device)
        point, vectors = measure_step(network, sequences, probe.points)
        record.steps.append(step)
        record.measured.append(point)
        record.points.append([vectors.points(call) for call in point["calls"]])
        save(file, record)
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
    """The files of a checkpoint by name, size and time."""
    return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(path.iterdir()) if f.is_file()]


def _describe(folder: Path, checkpoint: Path) -> str:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint)
    layers, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    size = f", {layers} layers of {width}" if layers and width else ""
    return f"{folder.resolve().name} ({config.model_type}{size})"
