"""Every metric asked for at once: one pass of each kind, and what the rows look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastaniso.accumulator import Accumulator, check_memory, scatters_for
from fastaniso.functional import passes
from fastaniso.functional.neighborhood import nearest_of
from fastaniso.functional.pairwise import visited_pairs
from fastaniso.pairing.sets import as_sets, numbered
from fastaniso.progress import Report
from fastaniso.result import Description
from fastaniso.rows import as_rows
from fastaniso.state import Gram, GroupMoments, Moments
from fastaniso.statistics.catalogue import Asked, asked_for, merged_needs
from fastaniso.statistics.describe import describe as described
from fastaniso.statistics.metric import AGAIN, GROUPS, NEIGHBORS, PAIRS, RAW, UNIT

ROWS = frozenset({RAW, UNIT, PAIRS, NEIGHBORS, AGAIN})
"""States that can be made of rows alone."""


def describe(
    hidden: Any,
    *,
    metrics: Any = None,
    mask: Any = None,
    groups: Any = None,
    gram: bool | str | None = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
    progress: Report | bool | None = None,
) -> Description:
    """Everything at once, exact over the n(n−1) ordered pairs i ≠ j: print it, or read its fields.

    ``gram`` True costs O(n d²) and gives the std of the cosine and the spectral scores; "unit" only the std, "raw"
    only the scores, False neither, in one O(n d) pass. ``groups`` are integer labels ``[...]`` and give the mean
    cosine within and between them.

    ``metrics`` are names that ``fastaniso.metrics()`` lists, or "all" (with ``groups=``, those of groups, too). They
    come out in ``result.metrics``, with their options in ``result.conventions``. Options of a metric stand beside its
    name, and variants side by side: ``metrics=["mev", ("mev", {"legacy": "centered"})]``. All share one pass of each
    kind, and none is made that no metric needs: ``gram`` then is what they ask for, unless it asks for more. "all"
    visits every pair of rows, once for distributions and once for neighbours, O(n² d); ``progress`` tells how far that
    is. Metrics of a second pass read the rows again, each for itself; rows that equal the mean are left out of
    ``centered_mean_cosine``. Other arguments as for ``cosine_std``.
    """
    rows = as_rows(hidden, mask)
    asked = asked_for(metrics, ROWS if groups is None else {*ROWS, GROUPS}, who="describe")
    gram = scatters_for(asked, (metrics is None) if gram is None else gram)
    labels, ids = (None, None) if groups is None else numbered(rows, hidden, groups)
    count = None if labels is None else len(labels)
    check_memory(rows, memory_limit, gram=gram, groups=count, backend=backend)
    accumulator = Accumulator(gram=gram, groups=count, backend=backend, invalid=invalid)
    accumulator.update(hidden, mask, ids)
    beside = _more_passes(hidden, asked, mask, backend, invalid, memory_limit, progress)
    return described(accumulator.state, accumulator.group_moments, invalid=invalid, asked=asked, **beside)


def describe_state(
    state: Moments | Gram, groups: GroupMoments | None = None, *, metrics: Any = None, invalid: str = "raise"
) -> Description:
    """What ``describe`` says, of a state: one that was loaded, or merged of what others sent; ``groups`` of its rows.

    ``metrics`` as for ``describe``, "all" those that the state can give.
    """
    able = {name for name, part in ((RAW, "scatter"), (UNIT, "unit_scatter")) if getattr(state, part, None) is not None}
    asked = asked_for(metrics, able if groups is None else {*able, GROUPS}, who="this state")
    return described(state, groups, invalid=invalid, asked=asked)


def _more_passes(
    hidden: Any,
    asked: Sequence[Asked],
    mask: Any,
    backend: str,
    invalid: str,
    memory_limit: int | str | None,
    progress: Report | bool | None,
) -> dict[str, Any]:
    """What the metrics need beside sums of rows and scatters: all pairs, neighbours, and second looks at the rows."""
    needs = merged_needs(asked)
    made: dict[str, Any] = {}
    if not needs.keys() & {PAIRS, NEIGHBORS, AGAIN}:
        return made
    options: dict[str, Any] = {"memory_limit": memory_limit, "progress": progress}
    # Refuses rows that cannot be normalised before a long run begins.
    sets = as_sets(hidden, None, mask, None, backend=backend, invalid=invalid)
    if PAIRS in needs:
        made["pairs"] = visited_pairs(sets, needs[PAIRS], **options)
    if NEIGHBORS in needs:
        made["nearest"] = nearest_of(sets, **needs[NEIGHBORS], **options)
    # A row that equals the mean is no mistake of the caller's.
    again: dict[str, Any] = {"mask": mask, "backend": backend, "invalid": "omit"}
    calls = needs.get(AGAIN, {}).get("calls", ())
    made["passes"] = {call: getattr(passes, call[0])(hidden, **dict(call[1]), **again) for call in calls}
    return made
