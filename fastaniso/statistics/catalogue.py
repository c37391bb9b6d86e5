"""The catalogue of metrics: what there is, and which are asked for by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from fastaniso.statistics.entries import ENTRIES
from fastaniso.statistics.metric import GROUPS, Metric, Needs, Options

_COLUMNS = ("name", "structure", "range", "source", "convention")


class Catalogue(Mapping[str, Metric]):
    """Metrics by name: ``metrics()["isoscore"].convention``; prints as a table."""

    def __init__(self, entries: Iterable[Metric]) -> None:
        """In the order given."""
        self._entries = {entry.name: entry for entry in entries}

    def __getitem__(self, name: str) -> Metric:
        """The metric of that name; ``KeyError`` with the nearest names."""
        try:
            return self._entries[name]
        except KeyError:
            raise KeyError(unknown(name, self._entries.values())) from None

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._entries)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._entries)

    def __repr__(self) -> str:
        """The names."""
        return f"Catalogue({', '.join(self)})"

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        cells = [_COLUMNS, *(_cells(entry) for entry in self._entries.values())]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


_CATALOGUE = Catalogue(ENTRIES)


def metrics() -> Catalogue:
    """Every metric by name, with structure, range, convention, options, cost and source: print it, or look one up.

    A mapping of names to frozen entries. Names are those of the functions of ``fastaniso`` and those that
    ``describe(hidden, metrics=[...])`` takes.
    """
    return _CATALOGUE


@dataclass(frozen=True)
class Asked:
    """A metric with all its options, and the name its value goes by."""

    label: str
    metric: Metric
    options: Options

    @property
    def needs(self) -> Needs:
        """States beside the linear sums, and what they have to hold."""
        return self.metric.needs(self.options)

    @property
    def convention(self) -> str:
        """The metric's, and the options it was computed with."""
        return "; ".join((self.metric.convention, *_told(self.options)))


def asked_for(asked: Any, able: Iterable[str], *, who: str) -> tuple[Asked, ...]:
    """The metrics asked for, each with all its options; ``ValueError`` with the nearest names of one there is not.

    ``asked`` is None (none), names, (name, options) pairs, or a mapping of names to options; "all" is every one that
    the states ``able`` suffice for, and ``who`` can make no others. The value of a name goes by it, with options by
    name(option=value), so that variants stand side by side.
    """
    able = frozenset(able)
    if asked is None:
        return ()
    if isinstance(asked, str) and asked == "all":
        everything = (_one(metric.name, {}) for metric in _CATALOGUE.values() if metric.value is not None)
        return tuple(entry for entry in everything if able.issuperset(entry.needs))
    if isinstance(asked, str):
        asked = (asked,)
    entries = [
        _one(*item) if isinstance(item, tuple) and len(item) == 2 else _one(item, {})
        for item in (asked.items() if isinstance(asked, Mapping) else asked)
    ]
    for entry in entries:
        for need in sorted(set(entry.needs) - able):
            name = entry.metric.name
            remedy = (
                "pass groups=" if need == GROUPS else f"call fastaniso.{name}, or describe(hidden, metrics=[{name!r}])"
            )
            raise ValueError(f"metrics: {name!r} needs {need}, which {who} does not have; {remedy}")
    return tuple({entry.label: entry for entry in entries}.values())


def merged_needs(asked: Iterable[Asked]) -> dict[str, dict[str, Any]]:
    """The states that any of the metrics needs, each with all that any needs it to hold."""
    merged: dict[str, dict[str, Any]] = {}
    for need, held in (item for entry in asked for item in entry.needs.items()):
        known = merged.setdefault(need, {})
        for name, value in held.items():
            # Numbers: the largest; flags: any; tuples: all there are.
            both = (known[name], value) if name in known else (value,)
            known[name] = tuple(dict.fromkeys(sum(both, ()))) if isinstance(value, tuple) else max(both)
    return merged


def _one(name: Any, options: Any) -> Asked:
    if name not in _CATALOGUE:
        raise ValueError(f"metrics: {unknown(name, _CATALOGUE.values())}")
    metric = _CATALOGUE[name]
    if metric.value is None:
        raise ValueError(f"metrics: {name!r} needs more than rows; call fastaniso.{name}")
    for option in options:
        if option not in metric.options:
            takes = ", ".join(metric.options) or "none"
            raise ValueError(f"metrics: {name!r} has no option {option!r}; its options are: {takes}")
    label = f"{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})" if options else name
    return Asked(label, metric, MappingProxyType({**metric.options, **options}))


def unknown(name: Any, entries: Iterable[Metric]) -> str:
    """That there is no such metric, and which are near it by any of their names."""
    names = {alias: entry.name for entry in reversed(list(entries)) for alias in (*entry.also, entry.name)}
    wanted = str(name).lower()
    near = dict.fromkeys(entry.name for entry in _CATALOGUE.values() if wanted in entry.also)
    near |= dict.fromkeys(names[match] for match in get_close_matches(wanted, names, n=3, cutoff=0.5))
    hint = f"did you mean {' or '.join(near)}?" if near else "fastaniso.metrics() lists them"
    return f"no metric {name!r}; {hint}"


def _cells(entry: Metric) -> tuple[str, ...]:
    return (entry.name, entry.structure, entry.range, entry.source, entry.convention)


def _told(options: Options) -> Iterator[str]:
    return (f"{name}={value!r}" for name, value in options.items() if value is not None)
