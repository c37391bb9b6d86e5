"""Accumulator: states grown batch by batch, as in a training loop, on the device the rows are on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from fastaniso.ops import dispatch as ops
from fastaniso.planning.plan import parse_bytes, plan, scatters_of
from fastaniso.result import Description
from fastaniso.rows import Rows, as_groups, as_rows, as_tensor
from fastaniso.state import NO_ROW, CorruptStateError, Gram, GroupMoments, Moments, StateMismatchError
from fastaniso.statistics.catalogue import Asked, asked_for, merged_needs
from fastaniso.statistics.describe import describe
from fastaniso.statistics.host import check_invalid_option
from fastaniso.statistics.metric import GROUPS, RAW, UNIT

FORMAT_VERSION = 1
SCATTERS = frozenset({RAW, UNIT})
"""States beside linear sums that batches leave."""


class Accumulator:
    """Statistics of rows that come in batches: ``update`` as they come, ``result`` when they are wanted.

    ``update`` never waits for the device; ``result`` does, once. All sums are float64 and exact over every row seen.

    Args:
        gram: False (O(d) memory: means, drift, norms), True (O(d²): also the std of the cosine and spectral scores),
            "unit" (only the std) or "raw" (only the scores).
        metrics: Names of metrics for ``result().metrics``, as ``describe`` takes them; "all" are those of linear sums,
            scatters and groups. ``gram`` then is what they need, unless it asks for more; pairs of rows are not kept.
        groups: Number of groups G, whose ids 0..G−1 each ``update`` then takes; or None.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise": rows that are zero or hold NaN or Inf make ``result`` raise; "omit": they are counted.
        memory_limit: Bytes, or a string such as "2 GB": ``MemoryError`` before an update that would take more.
    """

    def __init__(
        self,
        *,
        gram: bool | str = False,
        metrics: Any = None,
        groups: int | None = None,
        backend: str = "auto",
        invalid: str = "raise",
        memory_limit: int | str | None = None,
    ) -> None:
        """Check the options; memory is taken by the first ``update``."""
        check_invalid_option(invalid)
        if groups is not None and (isinstance(groups, bool) or not isinstance(groups, int) or groups < 1):
            raise ValueError(f"groups: expected the number of groups (an int of at least 1) or None, got {groups!r}")
        if backend not in ops.BACKENDS:
            raise ValueError(f"backend: expected one of {', '.join(ops.BACKENDS)}, got {backend!r}")
        if memory_limit is not None:
            parse_bytes(memory_limit)
        able = SCATTERS if groups is None else {*SCATTERS, GROUPS}
        self._asked = asked_for(metrics, able, who="an Accumulator")
        self.gram = scatters_for(self._asked, gram)
        self.metrics = metrics
        self._scatters = scatters_of(self.gram)
        self.groups = groups
        self.backend = backend
        self.invalid = invalid
        self.memory_limit = memory_limit
        self.reset()

    def reset(self) -> None:
        """Forget every row; the options stay, the dimension is free again."""
        self._state: Moments | Gram | None = None
        self._group_moments: GroupMoments | None = None

    def update(
        self, hidden: Any, mask: Any = None, groups: Any = None, *, source: str | None = None, start: int | None = None
    ) -> Self:
        """Add rows ``[..., d]``, without waiting for the device.

        Args:
            hidden: Rows as for ``mean_cosine``; the first update fixes d and the device.
            mask: Bool ``[...]``, True keeps a row.
            groups: Integer ids 0..G−1 ``[...]``, where the accumulator was made with ``groups=G``.
            source: A name for where the rows come from: then rows of it are never counted twice.
            start: Index of the first row, in ``source`` if named; by default rows count on from those before. Error
                messages name rows by it.

        Inside ``torch.compile`` leave ``source`` out: what it has covered is a Python value that changes every step.
        """
        rows = as_rows(hidden, mask)
        self._check_rows(rows, groups)
        check_memory(rows, self.memory_limit, gram=self.gram, groups=self.groups, backend=self.backend, accumulate=True)
        if start is None and source is not None:
            start = self._next_row(source)
        options: dict[str, Any] = {"backend": self.backend, "source": source, "start": start or 0}
        state: Moments | Gram
        if self._scatters:
            state = ops.gram(rows, raw="raw" in self._scatters, unit="unit" in self._scatters, **options)
        else:
            state = ops.moments(rows, **options)
        group_moments = None
        if self.groups is not None:
            ids = as_groups(groups, rows, as_tensor(hidden, "hidden").shape[:-1])
            group_moments = ops.group_moments(rows, ids, self.groups, **options)
        if start is None and self._state is not None:
            state, group_moments = _counted_on(self._state, state, group_moments)
        self._add(state, group_moments)
        return self

    def merge(self, *others: Accumulator) -> Self:
        """Add the rows that other accumulators have seen; refuses other options and rows seen by both."""
        for other in others:
            if (other._scatters, other.groups) != (self._scatters, self.groups):
                raise StateMismatchError(
                    f"accumulators of gram={self.gram!r}, groups={self.groups} and gram={other.gram!r}, "
                    f"groups={other.groups} do not merge; make both with the same options"
                )
            if other._state is not None:
                self._add(other._state, other._group_moments)
        return self

    def __add__(self, other: Accumulator) -> Accumulator:
        """A new accumulator with the rows of both and the options of the left one."""
        if not isinstance(other, Accumulator):
            return NotImplemented
        return self._like().merge(self, other)

    def result(self) -> Description:
        """Everything the states can give, as ``describe`` does; the one call that waits for the device."""
        return describe(self.state, self._group_moments, invalid=self.invalid, asked=self._asked)

    @property
    def state(self) -> Moments | Gram:
        """The state so far, on its device: save it with ``fastaniso.save_state``."""
        if self._state is None:
            raise ValueError("nothing accumulated yet: the dimension is not known; call update(hidden) first")
        return self._state

    @property
    def moments(self) -> Moments:
        """The linear part of ``state``."""
        return self.state.moments if isinstance(self.state, Gram) else self.state

    @property
    def group_moments(self) -> GroupMoments | None:
        """The state by group; None without ``groups=`` or before the first update."""
        return self._group_moments

    def state_dict(self) -> dict[str, Any]:
        """Plain dict of tensors, numbers and strings, which ``torch.load(..., weights_only=True)`` reads back."""
        return {
            "kind": "Accumulator",
            "version": FORMAT_VERSION,
            "scatters": list(self._scatters),
            "groups": self.groups,
            "state": None if self._state is None else self._state.to_dict(),
            "group_moments": None if self._group_moments is None else self._group_moments.to_dict(),
        }

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Take up where ``state_dict`` was written, in an accumulator of the same ``gram`` and ``groups``."""
        if content.get("kind") != "Accumulator" or content.get("version") != FORMAT_VERSION:
            raise CorruptStateError(
                f"expected the state_dict of an Accumulator in format {FORMAT_VERSION}, "
                f"got kind {content.get('kind')!r}, version {content.get('version')!r}"
            )
        try:
            scatters, groups = tuple(content["scatters"]), content["groups"]
            state, group_moments = content["state"], content["group_moments"]
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptStateError(f"incomplete state_dict: {error!r}") from error
        if (scatters, groups) != (self._scatters, self.groups):
            raise StateMismatchError(
                f"state_dict of scatters {scatters or 'none'} and groups={groups} does not fit an accumulator of "
                f"scatters {self._scatters or 'none'} and groups={self.groups}; make it with the same options"
            )
        kind = Gram if scatters else Moments
        restored = None if state is None else kind.from_dict(state)
        restored_groups = None if group_moments is None else GroupMoments.from_dict(group_moments)
        self._state, self._group_moments = restored, restored_groups

    def _like(self) -> Accumulator:
        return Accumulator(
            gram=self.gram,
            metrics=self.metrics,
            groups=self.groups,
            backend=self.backend,
            invalid=self.invalid,
            memory_limit=self.memory_limit,
        )

    def _check_rows(self, rows: Rows, groups: Any) -> None:
        if (groups is None) != (self.groups is None):
            raise ValueError(
                "groups: the accumulator was made without groups=; make it with Accumulator(groups=G)"
                if self.groups is None
                else f"groups: the accumulator has groups={self.groups}, so every update needs groups= ids [...]"
            )
        if self._state is None:
            return
        if rows.dim != self._state.dim:
            raise ValueError(
                f"hidden: expected rows of {self._state.dim} numbers as in the first update, got {rows.dim}; "
                "use another Accumulator, or reset()"
            )
        if rows.values.device != self._state.counts.device:
            raise ValueError(
                f"hidden: expected rows on {self._state.counts.device} as in the first update, got "
                f"{rows.values.device}; use one Accumulator a device and merge their states"
            )

    def _next_row(self, source: str) -> int:
        seen = () if self._state is None else self._state.coverage.ranges.get(source, ())
        return seen[-1][1] if seen else 0

    def _add(self, state: Moments | Gram, group_moments: GroupMoments | None) -> None:
        # Both merges before either is kept: an overlap refused by one must not leave the other counted.
        if self._state is not None:
            state = self._state.merge(state)  # type: ignore[arg-type]
        if self._group_moments is not None and group_moments is not None:
            group_moments = self._group_moments.merge(group_moments)
        self._state, self._group_moments = state, group_moments


def scatters_for(asked: Sequence[Asked], gram: bool | str) -> bool | str:
    """``gram`` widened by the scatters that the metrics need: False, True, "raw" or "unit"."""
    held = {*scatters_of(gram), *(name for name, need in (("raw", RAW), ("unit", UNIT)) if need in merged_needs(asked))}
    return held.pop() if len(held) == 1 else bool(held)


def _counted_on(
    before: Moments | Gram, state: Moments | Gram, group_moments: GroupMoments | None
) -> tuple[Moments | Gram, GroupMoments | None]:
    """The new states with their first invalid row counted on from the rows before, on the device.

    A count kept on the host would be a new constant every step, and torch.compile would compile anew for each.
    """
    seen = before.counts[:4].sum()

    def shifted(counts: Tensor) -> Tensor:
        return torch.cat((counts[:4], torch.minimum(counts[4:], NO_ROW - seen) + seen))

    if group_moments is not None:
        group_moments = replace(group_moments, dropped=shifted(group_moments.dropped))
    return replace(state, counts=shifted(state.counts)), group_moments


def check_memory(
    rows: Rows,
    memory_limit: int | str | None,
    *,
    gram: bool | str,
    backend: str,
    groups: int | None = None,
    accumulate: bool = False,
    remedy: str | None = None,
) -> None:
    """Raise ``MemoryError`` if an op on ``rows`` would take more than ``memory_limit`` beside them."""
    if memory_limit is not None:
        planned = plan(
            rows.count,
            rows.dim,
            gram=gram,
            groups=groups,
            dtype=rows.values.dtype,
            backend=backend,
            device=rows.values.device,
            accumulate=accumulate,
        )
        replace(planned, remedy=remedy or planned.remedy).check(memory_limit)
