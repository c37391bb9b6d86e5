"""What a probe has seen, site by site: frozen, prints as a table, and flat numbers for loggers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fastaniso.result import Description, json_ready

FORMAT_VERSION = 1

_HEAD = ("site", "rows", "mean cosine", "std", "without top 3", "drift", "/norm", "norm", "eff. rank", "mask")


@dataclass(frozen=True, eq=False)
class ProbeResult(Mapping[str, Description]):
    """Descriptions by site, exact over the n(n−1) ordered pairs of the rows that each site has counted.

    ``masks`` tells what left rows out: names of the model's arguments, "probe.mask", or "no mask" where all positions
    of a pass were counted; ``silent`` names sites that no call has reached.
    """

    sites: Mapping[str, Description]
    masks: Mapping[str, tuple[str, ...]]
    silent: tuple[str, ...]

    def __getitem__(self, site: str) -> Description:
        """The description of one site; ``KeyError`` with the nearest names."""
        try:
            return self.sites[site]
        except KeyError:
            near = get_close_matches(site, self.sites, n=3, cutoff=0.4) or list(self.sites)[:3]
            raise KeyError(f"no site {site!r}; there are such as {', '.join(near)}") from None

    def __iter__(self) -> Iterator[str]:
        """The names of the sites in the order of the flow."""
        return iter(self.sites)

    def __len__(self) -> int:
        """How many sites there are."""
        return len(self.sites)

    def scalars(self) -> dict[str, float]:
        """Flat numbers by ``metric/site``, as loggers take them; what was not asked for is left out."""
        return {
            f"{metric}/{site}": value
            for site, description in self.sites.items()
            for metric, value in scalars_of(description).items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain dict of numbers and strings."""
        sites = []
        for site, description in self.sites.items():
            content = description.to_dict()
            del content["conventions"]  # said once for all sites
            sites.append({"site": site, "masks": list(self.masks[site]), **content})
        first = next(iter(self.sites.values()))
        return {
            "kind": "probe",
            "format": FORMAT_VERSION,
            "sites": sites,
            "silent": list(self.silent),
            "conventions": first.conventions,
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """JSON of ``to_dict``; nan and ±inf, which JSON lacks, become null."""
        return json.dumps(json_ready(self.to_dict()), indent=indent, ensure_ascii=False, allow_nan=False)

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        rows = [_HEAD, *(_cells(site, d, self.masks[site]) for site, d in self.sites.items())]
        # Columns that nothing fills (gram=False) are left out.
        filled = [i for i in range(len(_HEAD)) if any(row[i] for row in rows[1:])]
        widths = {i: max(len(row[i]) for row in rows) for i in filled}
        ends = (0, len(_HEAD) - 1)
        lines = [
            "  ".join(row[i].ljust(widths[i]) if i in ends else row[i].rjust(widths[i]) for i in filled).rstrip()
            for row in rows
        ]
        notes = dict.fromkeys(note for d in self.sites.values() for note in d.notes)
        silent = [f"never called: {', '.join(self.silent)}"] if self.silent else []
        return "\n".join((*lines, *notes, *silent))


def scalars_of(d: Description) -> dict[str, float]:
    """The numbers of one site by name."""
    named: dict[str, float | None] = {
        "rows": float(d.n),
        "rows_invalid": float(d.dropped.zero + d.dropped.nonfinite),
        "mean_cosine": d.mean_cosine,
        "mean_cosine_without_top3": d.mean_cosine_without_top3,
        "cosine_std": d.cosine_std,
        "drift": d.drift.norm_of_mean,
        "drift_relative": d.drift.relative,
        "norm_mean": d.norms.mean,
        "norm_max": d.norms.max,
        "participation_ratio": d.participation_ratio,
        "isoscore": d.isoscore,
        "effective_rank": d.effective_rank,
    }
    for label, value in d.metrics.items():
        named |= {f"{label}_{part}": v for part, v in value.items()} if isinstance(value, Mapping) else {label: value}
    return {name: value for name, value in named.items() if value is not None}


def _cells(site: str, d: Description, masks: tuple[str, ...]) -> tuple[str, ...]:
    return (
        site,
        f"{d.n:,}",
        _short(d.mean_cosine),
        _short(d.cosine_std),
        _short(d.mean_cosine_without_top3),
        f"{d.drift.norm_of_mean:.4g}",
        _short(d.drift.relative),
        f"{d.norms.mean:.4g}",
        "" if d.effective_rank is None else f"{d.effective_rank:.1f}",
        ", ".join(masks),
    )


def _short(value: float | None) -> str:
    return "" if value is None else "nan" if math.isnan(value) else f"{value:.4f}"
