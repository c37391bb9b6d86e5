"""How much each size measures."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastaniso.paper.options import Size

DIM, HEADS, VOCABULARY = 768, 12, 30_522
KNOWN_NORMS = (0.5, 1.0, 5.0)
"""Norms of the bias whose cosines were known before, and which more seeds are measured at."""


@dataclass(frozen=True)
class Amount:
    """Norms of the bias, ascending, 0 first; seeds; sequences for BERT and for the other blocks, and their length."""

    norms: tuple[float, ...]
    drawn: tuple[float, ...]  # of these the scores are kept as histograms
    checked: tuple[float, ...]  # and at these float64 is computed beside the run's precision; none where it is that
    seeds: int
    more_seeds: int  # of BERT's cosines alone, at three norms and over two sequences
    sequences: int
    other_sequences: int
    length: int
    dtype: torch.dtype


def _decades(first: int, last: int, steps: tuple[float, ...]) -> tuple[float, ...]:
    """0, and the steps of each decade from 10^first to 10^last: nearly even in the logarithm."""
    inner = (float(f"{step}e{power}") for power in range(first, last) for step in steps)
    return (0.0, *inner, 10.0**last)


AMOUNTS = {
    Size.smoke: Amount(
        norms=(0.0, 0.5, 1.0, 5.0, 50.0, 5e4),
        drawn=(0.0, 1.0, 50.0, 5e4),
        checked=(1.0, 5e4),
        seeds=2,
        more_seeds=1,
        sequences=2,
        other_sequences=1,
        length=64,
        dtype=torch.float32,
    ),
    # Three norms a decade where cosines and norms change, fewer beyond, where only the softmax does.
    Size.small: Amount(
        norms=(*_decades(-1, 2, (1, 2, 5)), 1e3, 5e3, 1e4, 2e4, 5e4),
        drawn=(0.0, 1.0, 20.0, 1e3),
        checked=(0.5, 1.0, 5.0, 5e4),
        seeds=4,
        more_seeds=12,
        sequences=16,
        other_sequences=2,
        length=512,
        dtype=torch.float32,
    ),
    # Preferred numbers, ten a decade: 0.5, 1 and 5 are among them.
    Size.full: Amount(
        norms=_decades(-1, 5, (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)),
        drawn=(0.0, 1.0, 20.0, 1e3),
        checked=(),
        seeds=8,
        more_seeds=24,
        sequences=16,
        other_sequences=16,
        length=512,
        dtype=torch.float64,
    ),
}
