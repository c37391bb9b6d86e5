"""What is kept of one attention: sums over its queries and keys as rows, and over the softmax of its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastaniso.distributed.exchange import merge
from fastaniso.heads import as_heads
from fastaniso.models.attention.calls import AttentionCall
from fastaniso.models.attention.masks import MaskReader, MaskReading
from fastaniso.models.attention.projections import Taken
from fastaniso.ops import dispatch as ops
from fastaniso.rows import as_rows
from fastaniso.state import Attention, HeadMoments, State


class AttentionSums:
    """Accumulates the calls of one attention; memory is O(H·(d + bins)), whatever the length and number of calls."""

    def __init__(self, *, backend: str, bins: int, score_range: tuple[float, float]) -> None:
        """Nothing seen yet."""
        self._options: dict[str, Any] = {"backend": backend}
        self._scores: dict[str, Any] = {"bins": bins, "score_range": score_range}
        self._masks = MaskReader()
        self._states: dict[str, State] = {}
        self._wrong: Tensor | None = None
        self.crosses = False
        self.rotated: bool | None = None
        self.changes: tuple[str, ...] = ()
        self.key_heads = 0

    def update(self, call: AttentionCall, taken: Taken, keep: Tensor | None, keep_keys: Tensor | None) -> None:
        """Add one call, of which the queries are measured where ``keep`` (B, T), and the keys where ``keep_keys``.

        ``keep_keys`` is that of other states (cross-attention); keys of the queries' own states follow ``keep``.
        Raises ``UnreadableMaskError`` before anything is added.
        """
        reading = self._masks.read(call, keep)
        queries, keys = _rows_of(call.queries), _rows_of(own_keys(call, taken))
        biased = ("a position bias",) if reading.pattern.biased else ()
        crosses = taken.crosses if call.crosses is None else call.crosses
        # Keys before the queries are of a cache if the attention is causal, and of other states if it is not.
        self.crosses = not reading.pattern.causal and queries.shape[2] != keys.shape[2] if crosses is None else crosses
        self.rotated, self.changes, self.key_heads = taken.rotated, (*biased, *call.changes), keys.shape[1]
        self._add("attention", self._attend(queries, keys, reading, call.scale))
        self._add("queries", self._moments(queries, reading.query_mask))
        new = keys if self.crosses else keys[:, :, -queries.shape[2] :]  # those before are of calls before
        mask = self._key_rows(reading, keep_keys)
        self._add("keys", self._moments(new, mask))
        if taken.before is not None:
            self._add("queries_before_rotation", self._moments(_rows_of(taken.before.queries), reading.query_mask))
            self._add("keys_before_rotation", self._moments(_rows_of(taken.before.keys), mask))
        if reading.wrong is not None:
            self._wrong = reading.wrong if self._wrong is None else self._wrong + reading.wrong

    def clear(self) -> None:
        """Forget what was measured; what masks are like stays known."""
        self._states = {name: _empty_like(state) for name, state in self._states.items()}
        self._wrong = None

    def record(self) -> list[int]:
        """What is known beside the states, as ``add`` takes it; waits for the device."""
        return [self.misread, int(self.crosses)]

    def add(self, record: Sequence[int], states: Mapping[str, State]) -> None:
        """Also what ``record`` and ``states`` gave elsewhere; after a call, so that all have one form."""
        for name, state in states.items():
            self._add(name, state.to(self.attention.counts.device))
        self._note([record, self.record()])

    def gather(self, records: Sequence[Sequence[int]], group: Any) -> None:
        """Become the sums of all ranks of a process group, whose ``records`` are known; after a call on each."""
        for name, state in self._states.items():
            self._states[name] = merge(state, group)
        self._note(records)

    def _note(self, records: Sequence[Sequence[int]]) -> None:
        self._wrong = torch.tensor(sum(misread for misread, _ in records), device=self.attention.counts.device)
        self.crosses = any(crosses for _, crosses in records)

    @property
    def states(self) -> Mapping[str, State]:
        """By name: "attention", "queries" and "keys" as attended; and with ``_before_rotation`` where there is one."""
        return self._states

    @property
    def attention(self) -> Attention:
        """The state of the scores."""
        state = self._states["attention"]
        assert isinstance(state, Attention)
        return state

    def heads_of(self, name: str) -> HeadMoments | None:
        """The state of rows by name."""
        state = self._states.get(name)
        assert state is None or isinstance(state, HeadMoments)
        return state

    @property
    def misread(self) -> int:
        """(query, key) that masks of the model treated otherwise than was measured; waits for the device."""
        return 0 if self._wrong is None else int(self._wrong)

    def _attend(self, queries: Tensor, keys: Tensor, reading: MaskReading, scale: float) -> Attention:
        heads = as_heads(queries, keys, reading.query_mask, reading.key_mask)
        pattern = reading.pattern
        return ops.attention(
            heads, scale=scale, causal=pattern.causal, window=pattern.window, **self._scores, **self._options
        )

    def _moments(self, vectors: Tensor, mask: Tensor | None) -> HeadMoments:
        return HeadMoments.of([ops.moments(as_rows(head, mask), **self._options) for head in vectors.unbind(1)])

    def _key_rows(self, reading: MaskReading, keep_keys: Tensor | None) -> Tensor | None:
        if not self.crosses:
            return reading.query_mask
        if keep_keys is None or reading.key_mask is None:
            return reading.key_mask if keep_keys is None else keep_keys
        return keep_keys & reading.key_mask

    def _add(self, name: str, state: State) -> None:
        before = self._states.get(name)
        self._states[name] = state if before is None else before.merge(state)  # type: ignore[attr-defined]  # each has one


def _empty_like(state: State) -> State:
    if isinstance(state, HeadMoments):
        return HeadMoments.empty(state.dim, state.heads, state.counts.device)
    assert isinstance(state, Attention)
    form = {name: getattr(state, name) for name in ("scale", "causal", "window", "bins", "score_range", "positions")}
    return Attention.empty(state.dim, state.heads, state.counts.device, **form)


def own_keys(call: AttentionCall, taken: Taken) -> Tensor:
    """The keys (B, G, S, d) without the copies that were made for queries that share them."""
    return call.keys[:, :: call.keys.shape[1] // taken.key_heads]


def _rows_of(vectors: Tensor) -> Tensor:
    """Vectors whose numbers lie side by side: as they are in nearly every model."""
    return vectors if vectors.stride(-1) == 1 else vectors.contiguous()
