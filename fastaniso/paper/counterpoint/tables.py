"""Embedding tables: cosine and I(W), raw and centred."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import fastaniso


def tables(network: Any, *, head_is_trained: bool, thorough: bool) -> Iterator[dict[str, Any]]:
    """Figures of the table of input embeddings and, where it is another and trained, of that of output embeddings.

    ``thorough``: also I(W) of unit rows, and by one sign of each eigenvector.
    """
    first, last = network.get_input_embeddings().weight.detach(), _output(network)
    if last is None or not head_is_trained:
        yield {"table": "input", **measured(first, thorough=thorough)}
    elif last.data_ptr() == first.data_ptr() or torch.equal(first, last):
        yield {"table": "tied", **measured(first, thorough=thorough)}
    else:
        yield {"table": "input", **measured(first, thorough=thorough)}
        yield {"table": "output", **measured(last, thorough=thorough)}


def _output(network: Any) -> Tensor | None:
    head = network.get_output_embeddings()
    return None if head is None else head.weight.detach()


def measured(table: Tensor, *, thorough: bool) -> dict[str, Any]:
    """A table's rows that are not zero (padding is), as they are and less their mean."""
    kept = table[table.ne(0).any(1)]
    # In float64, since a mean far from zero would take digits of the rest along.
    centred = (kept.double() - kept.double().mean(0)).float()
    found = {
        "rows": len(kept),
        "zero_rows": len(table) - len(kept),
        "dim": kept.shape[1],
        "norm": float(kept.double().norm(dim=1).mean()),
        "cosine": fastaniso.mean_cosine(kept),
        "centred_cosine": fastaniso.centered_mean_cosine(kept),
        "isotropy": fastaniso.partition_isotropy(kept),
        "centred_isotropy": fastaniso.partition_isotropy(centred),
    }
    if thorough:
        found["one_sided"] = fastaniso.partition_isotropy(kept, legacy="one-sided")
        found["centred_one_sided"] = fastaniso.partition_isotropy(centred, legacy="one-sided")
        found["unit_isotropy"] = fastaniso.partition_isotropy(kept, unit=True)
    return {name: plain(value) for name, value in found.items()}


def plain(value: Any) -> Any:
    """A number as JSON holds it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
