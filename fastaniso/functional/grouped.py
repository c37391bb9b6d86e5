"""Pairs within groups and between them: the distributions behind the two means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastaniso.functional.pairwise import check_memory, checked_options, visit
from fastaniso.pairing.sets import Sets, as_sets, numbered, run
from fastaniso.pairing.tiles import Block, gather, kept_rows, visit_pairs
from fastaniso.progress import Report
from fastaniso.result import GroupPairs
from fastaniso.rows import Rows
from fastaniso.state import Pairs
from fastaniso.statistics.pairs import about, central, pair_statistics

_GATHERED = 2**22  # bytes of a block of rows of one group
_AT_ONCE = 64  # groups whose states are merged together


def group_pairs(
    hidden: Any,
    groups: Any,
    *,
    mask: Any = None,
    bins: int = 2048,
    thresholds: Sequence[float] = (),
    uniformity_t: float = 2.0,
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
    backend: str = "auto",
    invalid: str = "raise",
) -> GroupPairs:
    """Cosines over the unordered pairs of rows i < j of one group (``within``) and of two groups (``between``).

    Each is a ``PairStatistics``, pooled over groups; ``groups`` are integer labels ``[...]``, any values. Pairs within
    are visited group by group, and those between are all pairs less these: counts are exact, as the same two rows give
    the same product, and only the extrema between are not known (None). Other arguments as for ``pairs``.
    """
    asked_options = checked_options(bins, thresholds, uniformity_t)
    sets = as_sets(hidden, None, mask, None, backend=backend, invalid=invalid)
    labels, ids = numbered(sets.rows, hidden, groups)
    beside = sets.rows.count * 32 + 2 * _GATHERED + 3 * _AT_ONCE * 8 * (bins + 32)
    check_memory(sets, memory_limit, bins, beside=beside)
    everything = visit(sets, sets.asked(extrema=False, **asked_options), progress)
    within = _within(sets, ids.flatten(), len(labels), sets.asked(**asked_options), progress)
    between = _difference(everything, within)
    return GroupPairs(
        within=pair_statistics(within, n=sets.n, dropped=sets.dropped),
        between=pair_statistics(between, n=sets.n, dropped=sets.dropped),
        groups=len(labels),
    )


def _within(sets: Sets, ids: Tensor, groups: int, asked: Pairs, progress: Report | bool | None) -> Pairs:
    kept = kept_rows(sets.rows, sets.n)
    ids = ids if kept is None else ids[kept]
    # Stable: within a group rows keep their order, so that i < j before is i < j after.
    order = ids.argsort(stable=True)
    sizes = torch.bincount(ids, minlength=groups).tolist()
    order = order if kept is None else kept[order]
    total = sum(size * (size - 1) // 2 for size in sizes)
    states = _visit_groups(sets, order, sizes, asked)
    state = run(states, asked, total, progress, stage="pairs within groups")
    if state.extrema_at is None:
        return state
    known = state.extrema_at >= 0
    return replace(state, extrema_at=torch.where(known, order[state.extrema_at.clamp(min=0)], -1))


def _visit_groups(sets: Sets, order: Tensor, sizes: list[int], asked: Pairs) -> Iterator[Pairs]:
    """The state of the groups so far, after some groups at a time or a tile of a large one."""
    values = sets.rows.values
    rows_at_once = max(_GATHERED // (sets.rows.dim * values.element_size()), 1)
    state, start = asked, 0
    waiting: list[Pairs] = []
    for size in sizes:
        stop = start + size
        blocks = [
            _block(sets.rows, order, first, min(first + rows_at_once, stop))
            for first in range(start, stop, rows_at_once)
        ]
        start = stop
        if size < 2:
            continue
        part = asked
        for part in visit_pairs(asked, blocks, backend=sets.backend):
            if len(blocks) > 1:
                yield _merged([state, *waiting, part])
        waiting.append(part)
        if len(waiting) == _AT_ONCE:
            state, waiting = _merged([state, *waiting]), []
            yield state
    yield _merged([state, *waiting])


def _block(rows: Rows, order: Tensor, start: int, stop: int) -> Block:
    return Block(start, stop, lambda: gather(rows, order[start:stop]))


def _merged(states: Sequence[Pairs]) -> Pairs:
    """What ``Pairs.merge`` makes of all of them, one after another, in one go: groups are many and small."""
    last = states[-1]
    counts = torch.stack([state.counts for state in states])
    moments = _stacked(states, "moments")
    pairs = counts[:, 0].double()
    mean = moments[:, 0].sum() / pairs.sum().clamp(min=1)
    powers = central(mean, pairs.sum(), about(mean, pairs, moments).sum(0))
    extrema, extrema_at = last.extrema, last.extrema_at
    if extrema is not None:
        extrema, extrema_at = _extrema(_stacked(states, "extrema"), _stacked(states, "extrema_at"))
    return replace(
        last,
        provenance=frozenset().union(*(state.provenance for state in states)),
        counts=torch.cat((counts[:, :3].sum(0), counts[:, 3:].amin(0))),
        histogram=_stacked(states, "histogram").sum(0),
        moments=torch.stack((*powers, moments[:, 4].sum())),
        exponentials=_stacked(states, "exponentials").sum(0),
        above=_stacked(states, "above").sum(0),
        extrema=extrema,
        extrema_at=extrema_at,
    )


def _stacked(states: Sequence[Pairs], name: str) -> Tensor:
    return torch.stack([getattr(state, name) for state in states])


def _extrema(values: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Of extrema (m, 2) and their places (m, 2, 2) the least and the largest, and of equals the first in place."""
    found, at = [], []
    for which, best in enumerate((values[:, 0].min(), values[:, 1].max())):
        equal = places[values[:, which] == best, which]
        equal = equal[equal[:, 0] == equal[:, 0].min()]
        found.append(best)
        at.append(equal[equal[:, 1].argmin()])
    return torch.stack(found), torch.stack(at)


def _difference(everything: Pairs, within: Pairs) -> Pairs:
    """The pairs of ``everything`` that are not ``within``."""
    assert everything.histogram is not None
    assert within.histogram is not None
    assert everything.moments is not None
    assert within.moments is not None
    histogram = everything.histogram - within.histogram
    above = everything.above - within.above
    if bool((histogram < 0).any()) or bool((above < 0).any()):
        raise RuntimeError(
            "group_pairs: a bin holds more pairs within groups than pairs at all: this backend gives two rows another "
            "product in another tile; use backend='cpu'"
        )
    counts = torch.cat((everything.counts[:3] - within.counts[:3], everything.counts[3:]))
    total, pairs = everything.counts[0].double(), counts[0].double()
    mean = everything.moments[0] / total.clamp(min=1)
    powers = about(mean, total, everything.moments) - about(mean, within.counts[0].double(), within.moments)
    return replace(
        everything,
        provenance=everything.provenance | within.provenance,
        counts=counts,
        histogram=histogram,
        moments=torch.stack((*central(mean, pairs, powers), everything.moments[4] - within.moments[4])),
        exponentials=everything.exponentials - within.exponentials,
        above=above,
    )
