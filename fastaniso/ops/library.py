"""The ops as ``torch.ops.fastaniso.*``: one schema and one fake each, so that they trace, compile and export.

``hidden`` is (outer, inner, d) with a contiguous last axis, ``mask`` and ``groups`` (outer, inner); ``start`` is the
index of the first row in its source, ``other`` a second set of rows in the same form and dtype. ``queries`` are
(B, H, T, d) and ``keys`` (B, G, S, d), their masks (B, T) and (B, S). ``least`` (n,) of the rows, in the dtype of the
cosines, is the least cosine that a neighbour may have. ``backend`` is the resolved name of a module beside this one.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("fastaniso", "DEF")
_LIBRARY.define("moments(Tensor hidden, Tensor? mask, int start, str backend) -> (Tensor, Tensor, Tensor)")
_LIBRARY.define(
    "group_moments(Tensor hidden, Tensor? mask, Tensor groups, int num_groups, int start, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "gram(Tensor hidden, Tensor? mask, bool raw, bool unit, int start, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)

_LIBRARY.define(
    "pairs(Tensor hidden, Tensor? mask, Tensor? other, Tensor? other_mask, int bins, bool moments, bool extrema,"
    " float[] uniformity_t, float[] thresholds, int start, int other_start, str precision, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "neighbors(Tensor hidden, Tensor? mask, Tensor? other, Tensor? other_mask, Tensor? least, Tensor? other_least,"
    " int k, bool both, int start, int other_start, str precision, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "attention(Tensor queries, Tensor keys, Tensor? query_mask, Tensor? key_mask, float scale, bool causal,"
    " int? window, int bins, float low, float high, int positions, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


@cache
def _backend(name: str) -> ModuleType:
    # Imported on first use: `import fastaniso` must take neither triton nor a GPU.
    return import_module(f"fastaniso.ops.{name}")


def _moments(hidden: Tensor, mask: Tensor | None, start: int, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    counts, totals, sums = _backend(backend).moments(hidden, mask, start)
    return counts, totals, sums


def _group_moments(
    hidden: Tensor, mask: Tensor | None, groups: Tensor, num_groups: int, start: int, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    counts, unit_sum, unit_squared, dropped = _backend(backend).group_moments(hidden, mask, groups, num_groups, start)
    return counts, unit_sum, unit_squared, dropped


def _gram(
    hidden: Tensor, mask: Tensor | None, raw: bool, unit: bool, start: int, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    counts, totals, sums, scatter, unit_scatter = _backend(backend).gram(hidden, mask, raw, unit, start)
    return counts, totals, sums, scatter, unit_scatter


def _pairs(
    hidden: Tensor,
    mask: Tensor | None,
    other: Tensor | None,
    other_mask: Tensor | None,
    bins: int,
    moments: bool,
    extrema: bool,
    uniformity_t: list[float],
    thresholds: list[float],
    start: int,
    other_start: int,
    precision: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    counts, histogram, powers, exponentials, above, values, places = _backend(backend).pairs(
        hidden, mask, other, other_mask, bins, moments, extrema, uniformity_t, thresholds, start, other_start, precision
    )
    return counts, histogram, powers, exponentials, above, values, places


def _neighbors(
    hidden: Tensor,
    mask: Tensor | None,
    other: Tensor | None,
    other_mask: Tensor | None,
    least: Tensor | None,
    other_least: Tensor | None,
    k: int,
    both: bool,
    start: int,
    other_start: int,
    precision: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    counts, cosines, indices, other_cosines, other_indices = _backend(backend).neighbors(
        hidden, mask, other, other_mask, least, other_least, k, both, start, other_start, precision
    )
    return counts, cosines, indices, other_cosines, other_indices


def _attention(
    queries: Tensor,
    keys: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    scale: float,
    causal: bool,
    window: int | None,
    bins: int,
    low: float,
    high: float,
    positions: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    counts, histogram, scores, rows, received, visible = _backend(backend).attention(
        queries, keys, query_mask, key_mask, scale, causal, window, bins, low, high, positions
    )
    return counts, histogram, scores, rows, received, visible


for _name, _kernel in (
    ("moments", _moments),
    ("group_moments", _group_moments),
    ("gram", _gram),
    ("pairs", _pairs),
    ("neighbors", _neighbors),
    ("attention", _attention),
):
    _LIBRARY.impl(_name, _kernel, "CompositeExplicitAutograd")


def _fake_moments(hidden: Tensor, mask: Tensor | None, start: int, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    return (
        hidden.new_empty(5, dtype=torch.int64),
        hidden.new_empty(6, dtype=torch.float64),
        hidden.new_empty((4, hidden.shape[2]), dtype=torch.float64),
    )


def _fake_group_moments(
    hidden: Tensor, mask: Tensor | None, groups: Tensor, num_groups: int, start: int, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        hidden.new_empty(num_groups, dtype=torch.int64),
        hidden.new_empty((num_groups, hidden.shape[2]), dtype=torch.float64),
        hidden.new_empty(num_groups, dtype=torch.float64),
        hidden.new_empty(5, dtype=torch.int64),
    )


def _fake_gram(
    hidden: Tensor, mask: Tensor | None, raw: bool, unit: bool, start: int, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dim = hidden.shape[2]

    def square(wanted: bool) -> Tensor:
        return hidden.new_empty((dim, dim) if wanted else (0, 0), dtype=torch.float64)

    return (*_fake_moments(hidden, mask, start, backend), square(raw), square(unit))


def _fake_pairs(
    hidden: Tensor,
    mask: Tensor | None,
    other: Tensor | None,
    other_mask: Tensor | None,
    bins: int,
    moments: bool,
    extrema: bool,
    uniformity_t: list[float],
    thresholds: list[float],
    start: int,
    other_start: int,
    precision: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        hidden.new_empty(5, dtype=torch.int64),
        hidden.new_empty(bins, dtype=torch.int64),
        hidden.new_empty(5 if moments else 0, dtype=torch.float64),
        hidden.new_empty(len(uniformity_t), dtype=torch.float64),
        hidden.new_empty(len(thresholds), dtype=torch.int64),
        hidden.new_empty(2 if extrema else 0, dtype=torch.float64),
        hidden.new_empty((2 if extrema else 0, 2), dtype=torch.int64),
    )


def _fake_neighbors(
    hidden: Tensor,
    mask: Tensor | None,
    other: Tensor | None,
    other_mask: Tensor | None,
    least: Tensor | None,
    other_least: Tensor | None,
    k: int,
    both: bool,
    start: int,
    other_start: int,
    precision: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    n = hidden.shape[0] * hidden.shape[1]
    m = other.shape[0] * other.shape[1] if both and other is not None else 0
    return (
        hidden.new_empty(5, dtype=torch.int64),
        hidden.new_empty((n, k), dtype=dtype),
        hidden.new_empty((n, k), dtype=torch.int64),
        hidden.new_empty((m, k), dtype=dtype),
        hidden.new_empty((m, k), dtype=torch.int64),
    )


def _fake_attention(
    queries: Tensor,
    keys: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    scale: float,
    causal: bool,
    window: int | None,
    bins: int,
    low: float,
    high: float,
    positions: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    heads = queries.shape[1]
    return (
        queries.new_empty((heads, 8), dtype=torch.int64),
        queries.new_empty((heads, bins), dtype=torch.int64),
        queries.new_empty((heads, 4), dtype=torch.float64),
        queries.new_empty((heads, 5), dtype=torch.float64),
        queries.new_empty((heads, positions), dtype=torch.float64),
        queries.new_empty((heads, positions), dtype=torch.int64),
    )


torch.library.register_fake("fastaniso::moments", _fake_moments, lib=_LIBRARY)
torch.library.register_fake("fastaniso::group_moments", _fake_group_moments, lib=_LIBRARY)
torch.library.register_fake("fastaniso::gram", _fake_gram, lib=_LIBRARY)
torch.library.register_fake("fastaniso::pairs", _fake_pairs, lib=_LIBRARY)
torch.library.register_fake("fastaniso::neighbors", _fake_neighbors, lib=_LIBRARY)
torch.library.register_fake("fastaniso::attention", _fake_attention, lib=_LIBRARY)
