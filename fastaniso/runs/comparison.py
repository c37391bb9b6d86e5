"""What is different between two runs, and whether other data of the same kind could have made it so."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastaniso.result import json_ready
from fastaniso.runs.attention import HEADS, head_names
from fastaniso.runs.naming import named_metrics
from fastaniso.runs.reading import load_run
from fastaniso.runs.run import Run, RunSite

FORMAT_VERSION = 1
CONFIDENT = 1.96
"""Standard errors to either side that hold a normal deviation in 95 of 100 cases."""

BEYOND, LIKELY, WITHIN, UNKNOWN = "beyond", "likely beyond", "within", "unknown"

CONVENTIONS = {
    "change": "after - before",
    "heads": "mean over the heads of an attention",
    "noise": "half width of the 95 % interval of a change between two runs of nothing but other data, "
    "1.96 sqrt(SE_a^2 + SE_b^2): if every row were an independent draw; likely, if sequences are, of one size, and "
    "explain the same share of the variance in every direction; at most, as the sums kept allow. Of the mean cosine of "
    "a scan both are the jackknife's over 64 groups of sequences. One change in twenty may be beyond by chance alone",
    BEYOND: "|change| is above the most the noise can be",
    LIKELY: "|change| is above what the noise likely is, and not above the most",
    WITHIN: "|change| is no more than the noise likely is",
    UNKNOWN: "the states hold nothing that the noise of this value follows from",
}


@dataclass(frozen=True)
class Change:
    """A metric of a site in both runs; ``noise`` is (of rows, likely, most) as in the conventions, or None: unknown."""

    site: str
    metric: str
    before: float
    after: float
    change: float
    noise: tuple[float, float, float] | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side: ``made`` are the settings that differ, ``changes`` the values of the sites of both."""

    before: str
    after: str
    made: Mapping[str, tuple[Any, Any]]
    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def beyond(self) -> tuple[Change, ...]:
        """The changes beyond the noise."""
        return tuple(change for change in self.changes if change.verdict == BEYOND)

    def of(self, metrics: Sequence[str]) -> Comparison:
        """The same of some metrics by name; ``ValueError`` of one that no site of both runs has."""
        known = {change.metric for change in self.changes}
        for name in metrics:
            if name not in known:
                raise ValueError(f"metrics: no site of both runs has {name!r}; they have {', '.join(sorted(known))}")
        chosen = tuple(change for change in self.changes if change.metric in metrics)
        return Comparison(**{**vars(self), "changes": chosen})

    def to_dict(self) -> dict[str, Any]:
        """Plain dict of numbers and strings, with the conventions."""
        return {
            "kind": "comparison",
            "format": FORMAT_VERSION,
            "before": self.before,
            "after": self.after,
            "made": {name: list(both) for name, both in self.made.items()},
            "changes": [asdict(change) for change in self.changes],
            "verdicts": dict(Counter(change.verdict for change in self.changes)),
            "only_before": list(self.only_before),
            "only_after": list(self.only_after),
            "notes": list(self.notes),
            "conventions": CONVENTIONS,
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """JSON of ``to_dict``; nan and ±inf, which JSON lacks, become null."""
        return json.dumps(json_ready(self.to_dict()), indent=indent, ensure_ascii=False, allow_nan=False)

    def __str__(self) -> str:
        """The tables that ``print`` shows."""
        from fastaniso.runs.table import comparison_table

        return comparison_table(self)


def compare(before: str | os.PathLike[str] | Run, after: str | os.PathLike[str] | Run) -> Comparison:
    """What changed from one run to another, site by site, and whether it is beyond the noise of the data.

    Sites are the same by name, metrics are all that both have. The noise is that of other texts (images, rows) of the
    same kind through the same model, from the states: as if every row were an independent draw; likely, as how alike
    the rows of a sequence are suggests; and at most, as it allows. The mean cosine, the drift and the mean norm have
    one; spectral scores have none, because no sum over all rows tells how they spread. Runs on the same data differ by
    less than two independent ones: there it is too wide rather than too narrow.

    Args:
        before: A folder that ``scan`` or ``measure`` wrote, or a ``Run``.
        after: Another.
    """
    a, b = (run if isinstance(run, Run) else load_run(run) for run in (before, after))
    if a.kind != b.kind:
        raise ValueError(f"after: {b.name} is a {b.kind} and {a.name} a {a.kind}: they have no site in common")
    sites = {site.site: site for site in b.own_sites}
    ours = [site for site in a.own_sites if site.site in sites]
    order = [metric.name for metric in named_metrics((a, b))]
    changes = [change for site in ours for change in _changes(site, sites[site.site])]
    changes.sort(key=lambda change: order.index(change.metric))
    changes += _changes_of_heads(a, b)
    notes = [f"{run.name} lacks {what}" for run in (a, b) for what in run.missing]
    return Comparison(
        before=a.name,
        after=b.name,
        made=dict(_made_differently(a, b)),
        changes=tuple(changes),
        only_before=tuple(site.site for site in a.own_sites if site.site not in sites),
        only_after=tuple(name for name in sites if name not in {site.site for site in ours}),
        notes=tuple(notes),
    )


def _changes(before: RunSite, after: RunSite) -> Iterator[Change]:
    for name, value in before.values.items():
        if name not in after.values:
            continue
        change = after.values[name] - value
        noise = None
        if name in before.noise and name in after.noise:
            of_rows, likely, most = (
                CONFIDENT * math.hypot(a, b) for a, b in zip(before.noise[name], after.noise[name], strict=True)
            )
            noise = (of_rows, likely, most)
        yield Change(before.site, name, value, after.values[name], change, noise, _verdict(change, noise))


def _changes_of_heads(a: Run, b: Run) -> Iterator[Change]:
    """Of the attentions that both runs have, by name: the mean over the heads of each value."""
    theirs = {attention.site: attention for attention in b.attentions}
    for name in head_names(a.attentions):
        for ours in a.attentions:
            other = theirs.get(ours.site)
            if name in ours.values and other is not None and name in other.values:
                before, after = ours.mean(name), other.mean(name)
                yield Change(ours.site, HEADS + name, before, after, after - before, None, UNKNOWN)


def _verdict(change: float, noise: tuple[float, float, float] | None) -> str:
    if noise is None:
        return UNKNOWN
    _, likely, most = noise
    return BEYOND if abs(change) > most else LIKELY if abs(change) > likely else WITHIN


def _made_differently(a: Run, b: Run) -> Iterator[tuple[str, tuple[Any, Any]]]:
    ours, theirs = (_settings(run) for run in (a, b))
    for name in dict.fromkeys((*ours, *theirs)):
        both = (ours.get(name), theirs.get(name))
        if both[0] != both[1]:
            yield name, both


def _settings(run: Run) -> dict[str, Any]:
    """What a run was made from, a line each; how long it took is no setting."""
    flat: dict[str, Any] = {}
    for name, value in {**run.about, **run.provenance}.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": part for key, part in value.items()}
        elif name != "seconds":
            flat[name] = value
    return flat
