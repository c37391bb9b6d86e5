"""From rows to a Gram, and from a score on the device to a number, with what there is to say about it."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from fastaniso.accumulator import check_memory
from fastaniso.ops import dispatch as ops
from fastaniso.rows import as_rows
from fastaniso.state import Gram
from fastaniso.statistics.describe import few_rows
from fastaniso.statistics.host import check_invalid_option, dropped_rows, to_host
from fastaniso.statistics.spectrum import Spectra


def gram_of(
    hidden: Any,
    mask: Any,
    backend: str,
    invalid: str,
    memory_limit: int | str | None,
    *,
    unit: bool = False,
    name: str = "hidden",
) -> Gram:
    """One pass over the rows: the scatter of x, or that of u = x/‖x‖ with ``unit``."""
    check_invalid_option(invalid)
    rows = as_rows(hidden, mask, name=name)
    # The state of hidden is held beside that of other.
    check_memory(
        rows,
        memory_limit,
        gram="unit" if unit else "raw",
        backend=backend,
        accumulate=name == "other",
        remedy="pass fewer dimensions: second moments take O(d²)",
    )
    return ops.gram(rows, raw=not unit, unit=unit, backend=backend)


def spectra_of(
    hidden: Any, mask: Any, backend: str, invalid: str, memory_limit: int | str | None, *, unit: bool = False
) -> Spectra:
    """The spectra of ``gram_of``."""
    return Spectra(gram_of(hidden, mask, backend, invalid, memory_limit, unit=unit))


def spectral_score(gram: Gram, score: Tensor, invalid: str) -> float:
    """The score on the host; warns the caller's caller where there are few rows a dimension."""
    counts, value = to_host(gram.counts, score)
    dropped_rows(counts, invalid)
    if note := few_rows(int(counts[0]), gram.dim):
        warnings.warn(note, UserWarning, stacklevel=3)
    return float(value[0])
