"""What a state has seen: rows of named sources, and that none is counted twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from fastaniso.state.errors import StateMismatchError


@dataclass(frozen=True)
class Coverage:
    """Which rows of which sources a state has seen: sorted, disjoint, half-open ranges by source name."""

    ranges: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, source: str, start: int, stop: int) -> Self:
        """Rows ``start`` to ``stop`` (half-open) of ``source``."""
        return cls({source: ((start, stop),)} if stop > start else {})

    def union(self, other: Coverage) -> Coverage:
        """Both coverages together; raises ``StateMismatchError`` where they overlap."""
        if not other.ranges:
            return self
        if not self.ranges:
            return other
        merged = dict(self.ranges)
        for source, ranges in other.ranges.items():
            merged[source] = _join(source, (*merged.get(source, ()), *ranges))
        return Coverage(merged)

    def to_plain(self) -> dict[str, list[list[int]]]:
        """Lists and strings, as stored."""
        return {source: [list(r) for r in ranges] for source, ranges in self.ranges.items()}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Self:
        """What ``to_plain`` wrote."""
        return cls({source: tuple((int(a), int(b)) for a, b in ranges) for source, ranges in content.items()})


def _join(source: str, ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start < joined[-1][1]:
            raise StateMismatchError(
                f"rows {start} to {min(stop, joined[-1][1])} of {source!r} are in both states: "
                "merging would count them twice; merge states of disjoint rows"
            )
        if joined and start == joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)


class Rectangle(NamedTuple):
    """Pairs of a row start ≤ i < stop and a row other_start ≤ j < other_stop."""

    start: int
    stop: int
    other_start: int
    other_stop: int

    def area_shared_with(self, other: Rectangle) -> int:
        """Index pairs that both hold."""
        rows = min(self.stop, other.stop) - max(self.start, other.start)
        others = min(self.other_stop, other.other_stop) - max(self.other_start, other.other_start)
        return max(rows, 0) * max(others, 0)


@dataclass(frozen=True)
class PairCoverage:
    """Which pairs of rows a state has seen: disjoint rectangles of row indices by the names of both sources.

    All pairs of a range of rows with itself are the square of that range.
    """

    rectangles: Mapping[tuple[str, str], tuple[Rectangle, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, source: str, rows: tuple[int, int], other: str, others: tuple[int, int]) -> Self:
        """Rows (half-open) of ``source`` with rows of ``other``; of one source either the same or disjoint rows."""
        if source == other and rows != others and max(rows[0], others[0]) < min(rows[1], others[1]):
            raise StateMismatchError(
                f"rows {rows} and {others} of {source!r} overlap: some rows would be paired with themselves; "
                "pair a range with itself, or with a disjoint one"
            )
        empty = rows[1] <= rows[0] or others[1] <= others[0]
        return cls({} if empty else {(source, other): (Rectangle(*rows, *others),)})

    def union(self, other: PairCoverage) -> PairCoverage:
        """Both coverages together; raises ``StateMismatchError`` where they overlap."""
        merged = dict(self.rectangles)
        for names, rectangles in other.rectangles.items():
            for rectangle in rectangles:
                merged[names] = _add_rectangle(names, merged.get(names, ()), rectangle)
        return PairCoverage(merged)

    def area(self, source: str, rows: tuple[int, int], other: str, others: tuple[int, int]) -> int:
        """How many of the index pairs of rows × others are covered: 0 none, the rectangle's area all."""
        asked = Rectangle(*rows, *others)
        return sum(asked.area_shared_with(r) for r in self.rectangles.get((source, other), ()))

    def to_plain(self) -> list[list[Any]]:
        """Lists, strings and numbers, as stored."""
        return [[*names, [list(r) for r in rectangles]] for names, rectangles in self.rectangles.items()]

    @classmethod
    def from_plain(cls, content: Iterable[Any]) -> Self:
        """What ``to_plain`` wrote."""
        return cls(
            {
                (str(source), str(other)): tuple(Rectangle(*(int(edge) for edge in r)) for r in rectangles)
                for source, other, rectangles in content
            }
        )


def _add_rectangle(names: tuple[str, str], rectangles: tuple[Rectangle, ...], new: Rectangle) -> tuple[Rectangle, ...]:
    for known in rectangles:
        if known.area_shared_with(new):
            raise StateMismatchError(
                f"pairs of rows {new[:2]} of {names[0]!r} with rows {new[2:]} of {names[1]!r} are in both states: "
                "merging would count them twice; merge states of disjoint pairs"
            )
    for known in rectangles:
        # Side by side with one edge in common: one rectangle, so that a long run keeps a short list.
        if known[:2] == new[:2] and (known.other_stop == new.other_start or new.other_stop == known.other_start):
            joined = Rectangle(*new[:2], min(known[2], new[2]), max(known[3], new[3]))
        elif known[2:] == new[2:] and (known.stop == new.start or new.stop == known.start):
            joined = Rectangle(min(known[0], new[0]), max(known[1], new[1]), *new[2:])
        else:
            continue
        return _add_rectangle(names, tuple(r for r in rectangles if r is not known), joined)
    return (*rectangles, new)
