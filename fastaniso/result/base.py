"""What all results share: plain dicts and JSON, rows left out, and the table that ``print`` shows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Dropped:
    """Rows left out: by the mask, because they are zero, because they hold NaN or Inf."""

    masked: int
    zero: int
    nonfinite: int


class Result:
    """A frozen dataclass with conventions; what stays out of ``repr`` (arrays) stays out of the dict, too."""

    _conventions: ClassVar[Mapping[str, str]] = {}

    @property
    def conventions(self) -> dict[str, str]:
        """How each value is defined."""
        return dict(self._conventions)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict of numbers and strings, with the conventions; arrays stay out."""
        assert is_dataclass(self)
        plain = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.repr}
        return {**plain, "conventions": self.conventions}

    def to_json(self, *, indent: int | None = None) -> str:
        """JSON of ``to_dict``; nan and ±inf, which JSON lacks, become null."""
        return json.dumps(json_ready(self.to_dict()), indent=indent, ensure_ascii=False, allow_nan=False)


def json_ready(value: Any) -> Any:
    """``value`` with None for nan and ±inf, and lists for tuples."""
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [json_ready(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of labels and values, the values below each other."""
    rows = list(rows)
    width = max(len(label) for label, _ in rows)
    return [f"{label:<{width}}  {value}" for label, value in rows]


def number(value: float) -> str:
    """Six digits, as tables show them."""
    return f"{value:.6g}"


def row_count(n: int, dim: int, dropped: Dropped) -> str:
    """How many rows there are, and how many were left out and why."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in asdict(dropped).items() if count)
    return f"{n:,} of {dim} numbers" + (f" ({reasons} dropped)" if reasons else "")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return tuple(_plain(item) for item in value) if isinstance(value, tuple) else value
