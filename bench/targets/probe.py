"""Targets of ``probe``."""

from __future__ import annotations

from collections.abc import Sequence

from bench import probe
from bench.harness import Row
from bench.targets.target import Target


def _added(rows: Sequence[Row]) -> float | None:
    """The share that probing one step in ten adds to ten steps."""
    shares = [row.share_of_limit for row in rows if (row.op, row.contender) == ("probe", probe.PROBED)]
    return 1 / shares[0] - 1 if shares and shares[0] else None


OTHERS = (Target("probe, one training step in ten, share added", 0.03, _added, at_least=False, form="{:.3f}"),)
