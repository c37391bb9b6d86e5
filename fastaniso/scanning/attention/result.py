"""Frozen results of a model's attentions, site by site and head by head."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from fastaniso.result import AttentionStatistics, QueriesKeys, json_ready
from fastaniso.scanning.attention.sums import AttentionSums
from fastaniso.state import State
from fastaniso.statistics.attention import describe_attention
from fastaniso.statistics.queries_keys import describe_queries_keys

FORMAT_VERSION = 1

_POSITIONS = {True: "after rotation", False: "no rotation", None: "as attended"}


@dataclass(frozen=True)
class AttentionSite:
    """One attention: ``attended`` are its queries and keys as it scores them, ``projected`` those before a rotation.

    ``kind`` is "self", or "cross" where keys come from other states than queries; head h of ``heads`` reads keys
    h // (heads / key_heads). ``changes`` names what the model does to its scores beside scale and mask: where it does
    something, ``attention`` has the scores q·k alone, and nan for all that comes from their softmax.
    """

    site: str
    path: str
    kind: str
    heads: int
    key_heads: int
    changes: tuple[str, ...]
    attended: QueriesKeys
    projected: QueriesKeys | None
    attention: AttentionStatistics

    @classmethod
    def of(cls, site: str, path: str, sums: AttentionSums, *, invalid: str) -> Self:
        """The statistics of what was summed; waits for the device."""
        statistics = describe_attention(sums.attention, invalid=invalid)
        return cls(
            site=site,
            path=path,
            kind="cross" if sums.crosses else "self",
            heads=sums.attention.heads,
            key_heads=sums.key_heads,
            changes=sums.changes,
            attended=_queries_keys(sums, site, "", _POSITIONS[sums.rotated], invalid),
            projected=_queries_keys(sums, site, "_before_rotation", "before rotation", invalid)
            if sums.heads_of("queries_before_rotation")
            else None,
            attention=_scores_alone(statistics) if sums.changes else statistics,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain dict; the conventions are said once for all sites."""
        content: dict[str, Any] = {
            "attended": _plain(self.attended),
            "projected": None if self.projected is None else _plain(self.projected),
            "attention": _plain(self.attention),
        }
        content["attention"]["sink_rates"] = self.attention.sink_rates().tolist()
        content["attention"]["attention_to"] = self.attention.attention_to.tolist()
        named = {name: getattr(self, name) for name in ("site", "path", "kind", "heads", "key_heads", "changes")}
        return {**named, **content}


@dataclass(frozen=True, eq=False)
class AttentionResult:
    """The attentions of a model. ``refused`` has the reason for each that could not be measured.

    ``states`` has by ``SITE.attention``, ``SITE.queries`` and ``SITE.keys`` what the figures come from, and where there
    is a rotation ``SITE.queries_before_rotation`` and ``SITE.keys_before_rotation``; histograms are in the first.
    """

    sites: tuple[AttentionSite, ...]
    refused: Mapping[str, str]
    states: Mapping[str, State] = field(repr=False)

    def __getitem__(self, site: str) -> AttentionSite:
        """The result of one attention by its name."""
        for result in self.sites:
            if result.site == site:
                return result
        reason = f": {self.refused[site]}" if site in self.refused else ""
        raise KeyError(f"no attention {site!r}{reason}; there are {', '.join(s.site for s in self.sites)}")

    @property
    def sink_rate(self) -> float:
        """Share of the heads of all sites with a mean attention above 0.3 to their first key; nan if none is known."""
        first = [site.attention.attention_to[:, 0] for site in self.sites if site.attention.attention_to.shape[1]]
        known = np.concatenate([heads[~np.isnan(heads)] for heads in first]) if first else np.empty(0)
        return float((known > 0.3).mean()) if known.size else math.nan

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the figures."""
        notes = [f"{site} is left out: {reason}" for site, reason in self.refused.items()]
        for changes in dict.fromkeys(site.changes for site in self.sites if site.changes):
            sites = [site.site for site in self.sites if site.changes == changes]
            notes.append(
                f"{_few(sites)}: the model changes these scores by {' and '.join(changes)}: scores are given without "
                "it, and nothing of their softmax"
            )
        return tuple(notes)

    @property
    def conventions(self) -> dict[str, str]:
        """How each value is defined."""
        if not self.sites:
            return {}
        pairs, heads = self.sites[0].attended, self.sites[0].attended.queries
        return {
            **self.sites[0].attention.conventions,
            **pairs.conventions,
            **{f"queries, keys: {name}": text for name, text in heads.conventions.items()},
            "queries, keys": "the positions that are measured; all keys that are not masked are attended to",
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain dict of numbers and strings, without the states."""
        return {
            "kind": "attention",
            "format": FORMAT_VERSION,
            "sink_rate": self.sink_rate,
            "sites": [site.to_dict() for site in self.sites],
            "refused": dict(self.refused),
            "notes": list(self.notes),
            "conventions": self.conventions,
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """JSON of ``to_dict``; nan and ±inf, which JSON lacks, become null."""
        return json.dumps(json_ready(self.to_dict()), indent=indent, ensure_ascii=False, allow_nan=False)

    def __str__(self) -> str:
        """The table that ``print`` shows: a line a site, its heads in short."""
        from fastaniso.scanning.attention.table import attention_table

        return attention_table(self)


def _queries_keys(sums: AttentionSums, site: str, suffix: str, position: str, invalid: str) -> QueriesKeys:
    queries, keys = sums.heads_of(f"queries{suffix}"), sums.heads_of(f"keys{suffix}")
    assert queries is not None
    assert keys is not None
    return describe_queries_keys(
        queries, keys, scale=sums.attention.scale, position=position, invalid=invalid, name=site
    )


def _scores_alone(statistics: AttentionStatistics) -> AttentionStatistics:
    unknown = (math.nan,) * statistics.heads
    return replace(
        statistics,
        entropy=unknown,
        normalized_entropy=unknown,
        row_max=unknown,
        row_median=unknown,
        row_min=unknown,
        sink_rate=math.nan,
        attention_to=np.full_like(statistics.attention_to, math.nan),
    )


def _plain(part: QueriesKeys | AttentionStatistics) -> dict[str, Any]:
    content = part.to_dict()
    del content["conventions"]
    if isinstance(part, QueriesKeys):
        content["absolute_cosine_of_means"] = part.absolute_cosine_of_means
    return content


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]} ({len(names)} sites)"
