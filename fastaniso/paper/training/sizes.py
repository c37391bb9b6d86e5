"""How large the models are, how long they are trained, and when and on how much they are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastaniso.paper.options import Size


@dataclass(frozen=True)
class ProbeSet:
    """At most so many runs of ``words`` words, cut to ``length`` tokens, and how many of their vectors are kept."""

    sequences: int
    words: int
    length: int
    points: int


@dataclass(frozen=True)
class Budget:
    """A training: the model, its text in tokens, and the optimizer; what is a mapping is by kind of model."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    length: int
    batch: int
    steps: Mapping[str, int]
    rates: Mapping[str, float]
    dropout: Mapping[str, float]
    seeds: int
    keep_every: int
    probe: ProbeSet


BUDGETS = {
    Size.smoke: Budget(
        layers=2,
        width=32,
        heads=4,
        vocabulary=300,
        length=32,
        batch=4,
        steps={"masked": 12, "causal": 12},
        rates={"masked": 3e-3, "causal": 3e-3},
        dropout={"masked": 0.0, "causal": 0.1},
        seeds=2,
        keep_every=5,
        probe=ProbeSet(sequences=8, words=8, length=32, points=24),
    ),
    Size.small: Budget(
        layers=4,
        width=128,
        heads=4,
        vocabulary=512,
        length=64,
        batch=16,
        steps={"masked": 768, "causal": 512},
        rates={"masked": 1e-3, "causal": 1.5e-3},
        # Masks change from epoch to epoch, and so few tokens are predicted that the masked model needs no more noise.
        dropout={"masked": 0.0, "causal": 0.1},
        seeds=3,
        keep_every=50,
        probe=ProbeSet(sequences=64, words=20, length=64, points=64),
    ),
    # BERT-base and GPT-2 in size, for a GPU and more text than a machine of two cores reads in an afternoon.
    Size.full: Budget(
        layers=12,
        width=768,
        heads=12,
        vocabulary=30_000,
        length=512,
        batch=32,
        steps={"masked": 100_000, "causal": 100_000},
        rates={"masked": 1e-4, "causal": 3e-4},
        dropout={"masked": 0.1, "causal": 0.1},
        seeds=3,
        keep_every=1000,
        probe=ProbeSet(sequences=128, words=350, length=512, points=128),
    ),
}

CHECKPOINT_PROBES = {
    Size.smoke: ProbeSet(sequences=8, words=16, length=32, points=24),
    Size.small: ProbeSet(sequences=32, words=64, length=128, points=64),
    Size.full: ProbeSet(sequences=128, words=350, length=512, points=128),
}


def log_spaced(steps: int) -> list[int]:
    """0, 1, 2, 4, 8, … and the last."""
    spaced = [0, *(2**power for power in range(steps.bit_length()))]
    return [step for step in spaced if step < steps] + [steps]
