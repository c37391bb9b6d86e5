"""What was left out of a scan whole, and why: one bad file must not end a run, nor vanish from its record."""

from __future__ import annotations

EXAMPLES = 3
"""Names kept of the items skipped for one reason."""


class Skips:
    """Items skipped, counted by reason, with the names of the first few."""

    def __init__(self) -> None:
        """Nothing skipped yet."""
        self.counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Count one item; ``name`` is its file, or its place in the data, with details in brackets."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        names = self._names.setdefault(reason, [])
        if len(names) < EXAMPLES:
            names.append(name)

    def notes(self, item: str) -> list[str]:
        """A sentence on each reason."""
        return [
            f"skipped {count:,} of the {item}: {reason}: {', '.join(self._names[reason])}"
            + (" …" if count > len(self._names[reason]) else "")
            for reason, count in self.counts.items()
        ]

    def __str__(self) -> str:
        """The reasons in one line, for the message that nothing was left."""
        return "; ".join(f"{count:,} × {reason} ({self._names[reason][0]})" for reason, count in self.counts.items())
