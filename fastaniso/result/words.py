"""Similarity within words, sentences and sequences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastaniso.result.base import Dropped, Result, number, row_count, table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BASELINE = "mean cosine over the ordered pairs i != j of all rows"


@dataclass(frozen=True, eq=False)
class _ByGroup(Result):
    """``values`` (G,) by group, in order of the ``labels`` (G,), with the rows of each, ``counts`` (G,)."""

    n: int
    dim: int
    dropped: Dropped
    provenance: tuple[str, ...]
    version: str
    labels: NDArray[np.int64] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)
    values: NDArray[np.float64] = field(repr=False)

    def __post_init__(self) -> None:
        """A frozen result's arrays are read-only too."""
        for array in (self.labels, self.counts, self.values):
            array.setflags(write=False)

    def _rows(self) -> list[tuple[str, str]]:
        """What stands between how many rows there are and where they come from."""
        raise NotImplementedError

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        return "\n".join(
            table(
                [
                    ("rows", row_count(self.n, self.dim, self.dropped)),
                    *self._rows(),
                    ("from", f"{'; '.join(self.provenance) or 'nothing'}, fastaniso {self.version}"),
                ]
            )
        )


@dataclass(frozen=True, eq=False)
class SelfSimilarity(_ByGroup):
    """Mean cosine of a word with itself in other contexts: of each word (``values``), and their ``mean`` (SelfSim).

    ``mean`` is over the ``words`` of at least ``min_count`` occurrences, each counting once; ``adjusted`` is the mean
    less the ``baseline`` of random words. ``inter`` is the mean cosine of one occurrence each of two different types.
    """

    mean: float
    adjusted: float
    baseline: float
    inter: float
    words: int
    types: int
    min_count: int

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "values": "over the ordered pairs i != j of occurrences of a word; nan of a single one",
        "mean": "over words of at least min_count occurrences, each counting once",
        "baseline": _BASELINE,
        "adjusted": "mean - baseline",
        "inter": "over ordered pairs of different types, expectation over one occurrence of each",
    }

    def _rows(self) -> list[tuple[str, str]]:
        return [
            ("words", f"{self.words:,} of {self.types:,} types, with {self.min_count} or more occurrences"),
            ("self-similarity", number(self.mean)),
            ("  less the baseline", number(self.adjusted)),
            ("baseline of random words", number(self.baseline)),
            ("between types", number(self.inter)),
        ]


@dataclass(frozen=True, eq=False)
class WordMEV(_ByGroup):
    """How much of a word's occurrences one vector explains: of each word (``values``), and their ``mean``.

    ``mean`` is over the ``words`` of at least ``min_count`` occurrences, each counting once; ``adjusted`` is the mean
    less the ``baseline`` of random words.
    """

    mean: float
    adjusted: float
    baseline: float
    words: int
    types: int
    min_count: int

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "values": "largest of the squared singular values over their sum, uncentred occurrences; 1 of a single one",
        "mean": "over words of at least min_count occurrences, each counting once",
        "baseline": "the same of all rows together",
        "adjusted": "mean - baseline",
    }

    def _rows(self) -> list[tuple[str, str]]:
        return [
            ("words", f"{self.words:,} of {self.types:,} types, with {self.min_count} or more occurrences"),
            ("maximum explainable variance", number(self.mean)),
            ("  less the baseline", number(self.adjusted)),
            ("baseline of random words", number(self.baseline)),
        ]


@dataclass(frozen=True, eq=False)
class IntraSentenceSimilarity(_ByGroup):
    """Mean cosine of the tokens of a sentence to their mean: of each sentence (``values``), and their ``mean``.

    ``mean`` is over the ``sentences`` of at least ``min_count`` tokens, each counting once; ``adjusted`` is the mean
    less the ``baseline`` of random words.
    """

    mean: float
    adjusted: float
    baseline: float
    sentences: int
    min_count: int

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "values": "mean of cos(x_i, m) over the tokens of a sentence, m the mean of its x_i; 1 of a single token",
        "mean": "over sentences of at least min_count tokens, each counting once",
        "baseline": _BASELINE,
        "adjusted": "mean - baseline",
    }

    def _rows(self) -> list[tuple[str, str]]:
        return [
            ("sentences", f"{self.sentences:,} of {self.min_count} or more tokens"),
            ("intra-sentence similarity", number(self.mean)),
            ("  less the baseline", number(self.adjusted)),
            ("baseline of random words", number(self.baseline)),
        ]


@dataclass(frozen=True, eq=False)
class SequenceCosine(_ByGroup):
    """Mean cosine within sequences and across them: of each sequence (``values``), and their mean, ``within``.

    ``within`` is over the ``sequences`` of at least two rows, each counting once; ``pooled_within`` over all ordered
    pairs of rows of one sequence, ``across`` over those of two.
    """

    within: float
    pooled_within: float
    across: float
    sequences: int

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "values": "over the ordered pairs i != j of rows of a sequence; nan of a single row",
        "within": "mean of the values, each sequence counting once",
        "pooled_within": "over the ordered pairs i != j of rows of one sequence",
        "across": "over the ordered pairs of rows of two sequences",
    }

    def _rows(self) -> list[tuple[str, str]]:
        return [
            ("sequences", f"{self.sequences:,} of two or more rows"),
            ("mean cosine within", f"{number(self.within)} (pooled over pairs of rows: {number(self.pooled_within)})"),
            ("mean cosine across", number(self.across)),
        ]


@dataclass(frozen=True, eq=False)
class RankCollapse(_ByGroup):
    """How far the rows of a sequence are from all being their mean: of each sequence (``values``), and their ``mean``.

    ``mean`` is over the ``sequences`` of at least ``min_count`` rows, each counting once.
    """

    mean: float
    sequences: int
    min_count: int

    _conventions = {  # noqa: RUF012 (read only through a copy)
        "values": "|X - 1 m'|_F / |X|_F of the rows X of a sequence and their mean m: 0 all alike, 1 mean zero",
        "mean": "over sequences of at least min_count rows, each counting once",
    }

    def _rows(self) -> list[tuple[str, str]]:
        return [
            ("sequences", f"{self.sequences:,} of {self.min_count} or more rows"),
            ("rank-collapse residual", number(self.mean)),
        ]
