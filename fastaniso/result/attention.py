"""What the scores and the softmax of attention heads tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastaniso.result.base import Result, number, table


class AttentionDropped(NamedTuple):
    """Queries left out: masked, and seeing no key (of each head); with a score NaN or infinite (of all heads)."""

    masked: int
    keyless: int
    nonfinite: int


@dataclass(frozen=True, eq=False, repr=False)
class ScoreHistogram:
    """Scores of each head in B equal bins, the last closed: ``counts (H, B), edges (B + 1) = histogram``.

    ``below`` and ``above`` (H,) are how many lie outside the edges.
    """

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    below: NDArray[np.int64]
    above: NDArray[np.int64]

    def __post_init__(self) -> None:
        """A frozen result's arrays are read-only too."""
        for array in (self.counts, self.edges, self.below, self.above):
            array.setflags(write=False)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Counts and edges, as ``numpy.histogram`` gives them, with a row a head."""
        return iter((self.counts, self.edges))

    def __repr__(self) -> str:
        """Heads, bins and their range."""
        heads, bins = self.counts.shape
        return f"ScoreHistogram({heads} heads, {bins} bins over [{self.edges[0]:g}, {self.edges[-1]:g}])"


@dataclass(frozen=True, eq=False)
class AttentionStatistics(Result):
    """Attention of H heads; what is a tuple has a number a head, what is a mean is over the head's rows.

    A row is one query's softmax over the keys that it sees. nan means undefined: no row, or no row with two keys.
    ``attention_to`` (H, P) is the mean attention to each of the first P keys of a sequence over the ``visible`` (H, P)
    rows that see it, nan where none does.
    """

    heads: int
    dim: int
    scale: float
    causal: bool
    window: int | None
    rows: tuple[int, ...]
    one_key: tuple[int, ...]
    dropped: AttentionDropped
    scores: tuple[int, ...]
    score_mean: tuple[float, ...]
    score_variance: tuple[float, ...]
    score_min: tuple[float, ...]
    score_max: tuple[float, ...]
    entropy: tuple[float, ...]
    normalized_entropy: tuple[float, ...]
    row_max: tuple[float, ...]
    row_median: tuple[float, ...]
    row_min: tuple[float, ...]
    sink_rate: float
    sink_epsilon: float
    accumulator: str
    provenance: tuple[str, ...]
    version: str
    attention_to: NDArray[np.float64] = field(repr=False)
    visible: NDArray[np.int64] = field(repr=False)
    histogram: ScoreHistogram = field(repr=False)

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "scores": "s = scale * q.k of every query and key it sees, before the softmax",
        "score_variance": "over the scores' number (not one less)",
        "entropy": "-sum a log a over the keys a query sees, in nats, mean over rows",
        "normalized_entropy": "entropy / log(keys seen), mean over the rows that see two or more: from 0 to 1",
        "row_max": "mean over rows of the largest softmax",
        "row_median": "mean over rows of the median softmax over the keys seen; of an even number the mean of both in "
        "the middle",
        "row_min": "mean over rows of the least softmax over the keys seen",
        "attention_to": "mean softmax of a key over the rows that see it; keys counted from the first that is kept",
        "sink_rate": "share of heads with a mean attention to the first key above sink_epsilon",
    }

    def __post_init__(self) -> None:
        """A frozen result's arrays are read-only too."""
        for array in (self.attention_to, self.visible):
            array.setflags(write=False)

    def sink_rates(self, epsilon: float = 0.3) -> NDArray[np.float64]:
        """Share of heads with a mean attention above ``epsilon`` to each of the first P keys; nan: none sees it."""
        seen = ~np.isnan(self.attention_to)
        above = np.where(seen, self.attention_to, 0.0) > epsilon
        rates: NDArray[np.float64] = np.where(seen.any(0), above.sum(0) / np.maximum(seen.sum(0), 1), np.nan)
        return rates

    def __str__(self) -> str:
        """The table that ``print`` shows: a line a head."""
        columns = {
            "score mean": self.score_mean,
            "std": tuple(float(np.sqrt(variance)) for variance in self.score_variance),
            "entropy": self.entropy,
            "of log(keys)": self.normalized_entropy,
            "row max": self.row_max,
            "median": self.row_median,
            "min": self.row_min,
            "first key": tuple(self.attention_to[:, 0].tolist()) if self.attention_to.shape[1] else (),
        }
        cells = [["head", *(name for name, values in columns.items() if values)]]
        for head in range(self.heads):
            cells.append([str(head), *(f"{values[head]:.4g}" for values in columns.values() if values)])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join((*table(self._about()), "", *lines))

    def _about(self) -> list[tuple[str, str]]:
        reasons = [f"{count:,} {reason}" for reason, count in self.dropped._asdict().items() if count]
        rows = f"{max(self.rows, default=0):,} of each of {self.heads} heads, {self.dim} numbers"
        rows += f" ({', '.join(reasons)} dropped)" if reasons else ""
        how = f"{'causal' if self.causal else 'all keys'}" if self.window is None else f"{self.window} keys"
        how += ", causal" if self.causal and self.window is not None else ""
        one = max(self.one_key, default=0)
        about = [
            ("queries", rows),
            ("they see", how + (f"; {one:,} see one key" if one else "")),
            ("scale", number(self.scale)),
        ]
        if self.attention_to.shape[1]:
            about.append(
                ("sink rate", f"{number(self.sink_rate)} of heads above {self.sink_epsilon:g} to the first key")
            )
        about.append(
            ("from", f"{'; '.join(self.provenance) or 'nothing'}, {self.accumulator}, fastaniso {self.version}")
        )
        return about
