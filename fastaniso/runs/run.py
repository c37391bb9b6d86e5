"""A run that is over: what it measured, site by site, and what it was made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastaniso.result import PairStatistics
from fastaniso.scanning.rank import RankCorrelation, rank_correlation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRIFTS = ("norm_of_mean", "relative", "unit")
"""The forms of the drift, as ``Drift`` names them."""


class Noise(NamedTuple):
    """Standard errors over the draw of the data: if rows were drawn one by one; if sequences are, likely and at most.

    Of the mean cosine of a scan both are the jackknife's, over groups of sequences. Otherwise likely: the share of the
    variance that sequences explain is the same in every direction, sequences are of one size.
    """

    rows: float
    likely: float
    most: float


@dataclass(frozen=True, eq=False)
class RunSite:
    """One site. ``values`` go by the names of ``metrics()``, parts of one after a point: "drift.relative".

    ``noise`` is of those that it is known of; ``eigenvalues`` of Σxxᵀ/n, uncentred, largest first, or None.
    ``same_as`` names the site whose very state this is, ``stack`` is what stands before its plain name ("encoder.").
    """

    site: str
    stack: str
    same_as: str | None
    n: int
    dim: int
    values: Mapping[str, float]
    top_dimensions: tuple[tuple[int, float], ...]
    noise: Mapping[str, Noise] = field(repr=False)
    eigenvalues: NDArray[np.float64] | None = field(repr=False)

    @property
    def is_layer(self) -> bool:
        """Whether this is an embedding or a block, a point of its own in what is told of layers."""
        return not self.site.endswith("_final_norm")

    @property
    def short_name(self) -> str:
        """As an axis shows it."""
        plain = self.site.removeprefix(self.stack).removeprefix("block.")
        return {"embedding": "emb.", "pre_final_norm": "pre-norm", "post_final_norm": "norm"}.get(plain, plain)


@dataclass(frozen=True, eq=False)
class RunAttention:
    """One attention, ``kind`` "self" or "cross"; ``short_name`` is what tells it from the others.

    ``values`` by name have a number a head (of keys: a head of keys): "entropy", "score_std", …; of queries and keys
    "cosine_of_means", "queries.relative", …, and where they are rotated "before_rotation.cosine_of_means", …. nan where
    the model's scores are not those that were seen.
    """

    site: str
    short_name: str
    kind: str
    values: Mapping[str, tuple[float, ...]]

    def mean(self, name: str) -> float:
        """Mean over the heads that the value is known of; nan without one."""
        known = [value for value in self.values[name] if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True, eq=False)
class Run:
    """A folder of results read back: a ``scan`` of a model, or a ``measure`` of stored vectors (one site, "vectors").

    ``about`` and ``provenance`` are words and numbers by name, as they were written; ``missing`` says what the folder
    lacks of what a report can show.
    """

    folder: Path
    name: str
    kind: str
    about: Mapping[str, Any]
    sites: tuple[RunSite, ...]
    pairs: PairStatistics | None
    attentions: tuple[RunAttention, ...]
    notes: tuple[str, ...]
    missing: tuple[str, ...]
    conventions: Mapping[str, str] = field(repr=False)
    provenance: Mapping[str, Any] = field(repr=False)

    @property
    def own_sites(self) -> tuple[RunSite, ...]:
        """Sites with a state of their own: what goes into a final norm is the last block's."""
        return tuple(site for site in self.sites if site.same_as is None)

    @property
    def stacks(self) -> dict[str, tuple[RunSite, ...]]:
        """Sites with a state of their own by stack ("" where there is one stack)."""
        stacks: dict[str, list[RunSite]] = {}
        for site in self.own_sites:
            stacks.setdefault(site.stack, []).append(site)
        return {stack: tuple(sites) for stack, sites in stacks.items()}

    def drift_correlation(self, drift: str = "norm_of_mean", *, together: bool = False) -> dict[str, RankCorrelation]:
        """Spearman ρ and p over embedding and blocks of a form of the drift and the mean cosine, by stack.

        ``together``: over those of all stacks, under "", for stacks that are stages of one.
        """
        found = {}
        for stack, sites in ({"": self.own_sites} if together else self.stacks).items():
            layers = [site.values for site in sites if site.is_layer]
            known = [v for v in layers if f"drift.{drift}" in v and "mean_cosine" in v]
            found[stack] = rank_correlation([v[f"drift.{drift}"] for v in known], [v["mean_cosine"] for v in known])
        return found
