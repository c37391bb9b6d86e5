"""Whether two sets of states hold the same, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def same_states(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """By name: every tensor and every setting."""
    pairs = [(state.to_dict(), theirs[name].to_dict()) for name, state in ours.items()]
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name]
        for a, b in pairs
        for name, value in a.items()
    )
