"""Frozen results of a scan and of a measurement: they print as a table, and save as JSON, states and pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastaniso.result import Description, json_ready
from fastaniso.scanning.attention.result import AttentionResult
from fastaniso.scanning.rank import spearman
from fastaniso.scanning.saving import save_json, save_pictures
from fastaniso.state import Gram, Moments

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT_VERSION = 1


@dataclass(frozen=True)
class TokenCounts:
    """Positions of the first stack by what became of them, and what they came in.

    ``unit`` is what a position is called (tokens, frames, patches, positions) and ``item`` what a sequence of them is
    (sequences, clips, images). ``dropped`` are positions left out, by reason (special tokens, padding, …); ``skipped``
    are items left out whole, by reason (unreadable, silent, …). ``limited``: the data went on.
    """

    kept: int
    dropped: Mapping[str, int]
    sequences: int
    batches: int
    limited: bool
    skipped: Mapping[str, int]
    unit: str = "tokens"
    item: str = "sequences"


@dataclass(frozen=True)
class SiteResult:
    """One site. ``same_as`` names the site whose very state this is (what goes into a final norm), else None.

    ``masked`` are the positions that were left out, by reason: stacks may have positions of their own.
    In ``description`` the groups are the sequences: ``within_groups`` is the mean cosine of two tokens of one
    sequence, ``between_groups`` of tokens of two.
    """

    site: str
    same_as: str | None
    description: Description
    masked: Mapping[str, int]

    @property
    def within_sequence(self) -> float:
        """Mean cosine over the ordered pairs of tokens of one sequence, pooled over sequences."""
        value = self.description.within_groups
        assert value is not None
        return value

    @property
    def across_sequences(self) -> float:
        """Mean cosine over the ordered pairs of tokens of two sequences."""
        value = self.description.between_groups
        assert value is not None
        return value

    def to_dict(self) -> dict[str, Any]:
        """Plain dict."""
        content = self.description.to_dict()
        content["within_sequence"] = content.pop("within_groups")
        content["across_sequences"] = content.pop("between_groups")
        content["sequences"] = content.pop("groups")
        # Said once for all sites.
        del content["conventions"], content["notes"], content["version"]
        return {"site": self.site, "same_as": self.same_as, "masked": dict(self.masked), **content}


@dataclass(frozen=True, eq=False)
class ScanResult:
    """A model's hidden states over data, site by site; exact over all ordered pairs of kept positions.

    ``complete`` is False where the scan ended early: then later sites may lack rows of the last batch. ``attention`` is
    None where it was not asked for.
    """

    model: str
    data: str
    tokens: TokenCounts
    sites: tuple[SiteResult, ...]
    notes: tuple[str, ...]
    seconds: float
    complete: bool
    provenance: Mapping[str, Any] = field(repr=False)
    states: Mapping[str, Moments | Gram] = field(repr=False)
    attention: AttentionResult | None = field(repr=False, default=None)

    def __getitem__(self, site: str) -> SiteResult:
        """The result of one site by its name."""
        for result in self.sites:
            if result.site == site:
                return result
        raise KeyError(f"no site {site!r}; there are {', '.join(result.site for result in self.sites)}")

    @property
    def stacks(self) -> dict[str, tuple[SiteResult, ...]]:
        """Sites by stack: the prefix of their names ("" where there is one stack)."""
        stacks: dict[str, list[SiteResult]] = {}
        for result in self.sites:
            stacks.setdefault(prefix_of(result.site), []).append(result)
        return {prefix: tuple(results) for prefix, results in stacks.items()}

    @property
    def drift_correlation(self) -> dict[str, float]:
        """Spearman ρ over embedding and blocks between drift ‖x̄‖ and mean cosine, by stack; nan below 3 sites."""
        correlations = {}
        for prefix, results in self.stacks.items():
            layers = [r.description for r in results if not r.site.endswith("_final_norm")]
            correlations[prefix] = spearman([d.drift.norm_of_mean for d in layers], [d.mean_cosine for d in layers])
        return correlations

    def to_dict(self) -> dict[str, Any]:
        """Plain dict of numbers and strings, without the states."""
        return {
            "kind": "scan",
            "format": FORMAT_VERSION,
            "model": self.model,
            "data": self.data,
            "tokens": asdict(self.tokens),
            "sites": [site.to_dict() for site in self.sites],
            "drift_correlation": self.drift_correlation,
            "attention": None if self.attention is None else self.attention.to_dict(),
            "notes": list(self.notes),
            "seconds": self.seconds,
            "complete": self.complete,
            "provenance": dict(self.provenance),
            "conventions": {
                **self.sites[0].description.conventions,
                "within_sequence": "pooled over the ordered pairs of tokens of one sequence",
                "across_sequences": "over the ordered pairs of tokens of two sequences",
                "drift_correlation": "Spearman rho over embedding and blocks of |mean| and mean cosine",
                "site embedding": "what the first block takes",
                "site pre_final_norm": "what the last block gives",
            },
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """JSON of ``to_dict``; nan and ±inf, which JSON lacks, become null."""
        return json.dumps(json_ready(self.to_dict()), indent=indent, ensure_ascii=False, allow_nan=False)

    def plot(self) -> Figure:
        """Curves over the layers: a Figure, not shown. Needs matplotlib: ``pip install 'fastaniso[plot]'``."""
        from fastaniso.report import plot_layers

        return plot_layers(self)

    def save(self, folder: str | os.PathLike[str], *, pictures: bool = True) -> list[Path]:
        """Write ``scan.json``, ``states/SITE.safetensors`` and, where matplotlib is, ``plots/*.png``; their paths.

        ``pictures=False`` leaves the plots out, which take longest.
        """
        heads = {} if self.attention is None else self.attention.states
        written = save_json(Path(folder), "scan.json", self.to_json(indent=2), {**self.states, **heads})
        return written + (self.save_pictures(folder) if pictures else [])

    def save_pictures(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write ``plots/*.png`` where matplotlib is; their paths."""
        plots: dict[str, Callable[[], Figure]] = {"layers": self.plot}
        for site in self.sites:
            if site.same_as is None:
                plots[site.site] = partial(self._plot_site, site)
        return save_pictures(Path(folder) / "plots", plots)

    def _plot_site(self, site: SiteResult) -> Figure:
        from fastaniso.report import plot_site
        from fastaniso.report.style import short

        return plot_site(site.description, f"{short(self.model, 60)} on {short(self.data, 60)}: {site.site}")

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        from fastaniso.scanning.table import scan_table

        return scan_table(self) + ("" if self.attention is None else f"\n\n{self.attention}")


def prefix_of(site: str) -> str:
    """What stands before the plain name of a site: "encoder." of "encoder.block.3"."""
    for name in ("embedding", "pre_final_norm", "post_final_norm"):
        if site.endswith(name):
            return site.removesuffix(name)
    return site.rpartition("block.")[0]  # a stage may be called block.0 itself
