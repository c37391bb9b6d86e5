"""What a metric is: how it is defined, which states it needs, and how its value comes out of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import Tensor

from fastaniso.state import Gram, GroupMoments, Moments, Neighbors, Pairs
from fastaniso.statistics.spectrum import Spectra

STRUCTURES = ("linear", "gram", "pairs", "neighbors", "second pass", "groups")

RAW, UNIT, GROUPS, PAIRS, NEIGHBORS, AGAIN = (
    *("raw scatter", "unit scatter", "groups"),
    *("pairs", "neighbors", "the rows again"),
)

Value = Tensor | Mapping[str, Tensor]
Options = Mapping[str, Any]
Needs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Nearest:
    """Nearest neighbours of rows: the state, and the distances (m, k) in float64 of the rows left without copies.

    Fewer than asked for where there are not as many candidates. ``duplicates`` and ``uncertain`` as in ``TwoNN``.
    """

    state: Neighbors
    candidates: int
    kept: Tensor | None
    distances: Tensor
    duplicates: int
    uncertain: int


@dataclass(frozen=True)
class States:
    """What the passes over some rows left: linear sums always, the others where a metric asked for them.

    ``passes`` holds what functions of the rows returned, by the name and the options of the metric.
    """

    linear: Moments | Gram
    groups: GroupMoments | None = None
    pairs: Pairs | None = None
    nearest: Nearest | None = None
    passes: Mapping[tuple[str, Any], Any] = field(default_factory=dict)
    _spectra: list[Spectra] = field(default_factory=list, repr=False)

    @property
    def spectra(self) -> Spectra:
        """Eigenvalues of the scatters: each decomposed once, for all metrics."""
        if not self._spectra:
            assert isinstance(self.linear, Gram), "a Gram is made where a metric needs a scatter"
            self._spectra.append(Spectra(self.linear))
        return self._spectra[0]


@dataclass(frozen=True)
class Metric:
    """One metric: its definition in words, what it costs, and its value from states.

    ``structure`` is one of "linear" (sums, one read), "gram" (second moments), "pairs" (all pairs of rows),
    "neighbors", "second pass" and "groups". ``needs`` names the states beside the linear sums and what they have to
    hold (of pairs: arguments of ``Pairs.empty``; of neighbors: ``k`` and ``distances``; of
    the rows again: ``calls``); ``value`` makes one number, or
    several with names, on the states' device; None where rows are not enough to compute it. ``few_rows`` tells that the
    score is biased where there are few rows a dimension. ``also`` are other names it goes by.
    """

    name: str
    structure: str
    range: str
    convention: str
    source: str
    cost: str
    options: Options = field(default_factory=lambda: MappingProxyType({}))
    also: tuple[str, ...] = ()
    few_rows: bool = False
    needs: Callable[[Options], Needs] = field(default=lambda options: {}, repr=False)
    value: Callable[[States, Options], Value] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """The options are read-only, too."""
        assert self.structure in STRUCTURES, self.structure
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))
