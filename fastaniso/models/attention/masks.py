"""What an attention mask says, in few words: which keys are there, and which of them a query sees by its place.

A model hands its attention a mask of queries × keys. The kernels take one bit a key, causal or not, and a window. So a
pattern is looked for that gives the very same mask, bit for bit, over all queries that are measured; a mask that has
none (packed sequences, blocks, prefixes) is refused, never approximated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastaniso.models.attention.calls import AttentionCall
from fastaniso.models.attention.scores import BLOCKED


class UnreadableMaskError(ValueError):
    """A mask is not one of keys, causal or not, within a window: what attention sees cannot be said to the kernels."""


@dataclass(frozen=True)
class Pattern:
    """Which keys a query sees by its place: those up to its own if ``causal``; ``window`` of them, itself included.

    Not causal, the window has the query's own key in its middle. ``biased``: numbers are added to scores of seen keys.
    """

    causal: bool
    window: int | None = None
    biased: bool = False

    def sees(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """Bool (T, S); the last query stands at the last key."""
        place = torch.arange(keys - queries, keys, device=device)[:, None]
        behind = place - torch.arange(keys, device=device)
        if self.causal:
            return (behind >= 0) if self.window is None else (behind >= 0) & (behind < self.window)
        if self.window is None:
            return torch.ones_like(behind, dtype=torch.bool)
        return behind.abs() <= self.window // 2


@dataclass(frozen=True, eq=False)
class MaskReading:
    """``query_mask`` (B, T) and ``key_mask`` (B, S), None for all; ``wrong`` counts, on the device, where the model's
    mask is another than these and the pattern say."""

    query_mask: Tensor | None
    key_mask: Tensor | None
    pattern: Pattern
    wrong: Tensor | None


class MaskReader:
    """Reads the masks of one attention, call after call: a pattern once found stays, and is checked on the device.

    It is looked for, which waits for the device, in the first call and where sequences are longer than any before:
    short ones do not show a window.
    """

    def __init__(self) -> None:
        """Nothing read yet."""
        self._pattern: Pattern | None = None
        self._longest = 0

    def read(self, call: AttentionCall, keep: Tensor | None) -> MaskReading:
        """The masks of a call; ``keep`` (B, T) are the queries to measure, None for all that are not padding."""
        shape = (call.queries.shape[0], call.queries.shape[2], call.keys.shape[2])
        if call.mask is not None and not isinstance(call.mask, Tensor):
            raise UnreadableMaskError(
                f"a mask of type {type(call.mask).__name__} cannot be read; load the model with "
                "attn_implementation='sdpa' or 'eager'"
            )
        if call.mask is None or call.mask.dim() == 2:
            key_mask = None if call.mask is None else call.mask[:, -shape[2] :].bool()
            if keep is None and key_mask is not None and shape[1] == shape[2]:
                keep = key_mask
            if self._pattern is None:
                self._pattern = Pattern(call.causal, call.window if call.causal else None, _is_added(call.bias))
            return MaskReading(keep, key_mask, self._pattern, None)
        seen, odd, apart = _seen(call.mask, shape)
        keep = _own_keys(seen) if keep is None else keep
        # A key is there if any query that counts sees it: queries of padding may see anything, or nothing.
        key_mask = (seen & keep[:, :, None]).any(1)
        if self._pattern is None or shape[1] > self._longest:
            if apart is not None and bool(apart):
                raise UnreadableMaskError("its mask hides other keys from one head than from another")
            self._pattern = self._find(call, seen, keep, key_mask, odd)
            self._longest = shape[1]
        wrong = _differences(seen, keep, key_mask, self._pattern)
        for count in (None if self._pattern.biased else odd, apart):
            wrong = wrong if count is None else wrong + count
        return MaskReading(keep, key_mask, self._pattern, wrong)

    def _find(self, call: AttentionCall, seen: Tensor, keep: Tensor, key_mask: Tensor, odd: Tensor) -> Pattern:
        biased = bool(odd) or _is_added(call.bias)
        candidates = _candidates(call, _farthest(seen, keep), biased)
        misses = torch.stack([_differences(seen, keep, key_mask, pattern) for pattern in candidates]).tolist()
        found = [pattern for pattern, missed in zip(candidates, misses, strict=True) if not missed]
        if not found:
            raise UnreadableMaskError(
                f"its mask of {seen.shape[1]} queries and {seen.shape[2]} keys hides other keys than padding, "
                f"causality and a window do ({min(misses):,} of {seen.numel():,} differ): packed, prefixed or blocked "
                "sequences are not measured"
            )
        if self._pattern is None:
            return found[0]
        if self._pattern not in found:
            raise UnreadableMaskError(
                f"a window shows in its mask of {seen.shape[2]} keys that shorter masks before did not show; measure "
                "the longest sequences first"
            )
        return self._pattern


def _candidates(call: AttentionCall, farthest: int, biased: bool) -> list[Pattern]:
    """Patterns in the order in which they are believed where several give the same mask."""
    causal, both = [], []
    if call.window is not None:
        causal.append(Pattern(True, call.window, biased))
        # Models count a window to both sides with or without the query itself.
        both += [Pattern(False, window, biased) for window in (2 * call.window - 1, 2 * call.window + 1)]
    causal += [Pattern(True, None, biased), Pattern(True, farthest + 1, biased)]
    both += [Pattern(False, None, biased), Pattern(False, 2 * farthest + 1, biased)]
    return [*causal, *both] if call.causal else [*both, *causal]


def _farthest(seen: Tensor, keep: Tensor) -> int:
    """How far the farthest key is that a query sees."""
    _, queries, keys = seen.shape
    place = torch.arange(keys - queries, keys, device=seen.device)[:, None]
    distance = (place - torch.arange(keys, device=seen.device)).abs()
    return int((distance * (seen & keep[:, :, None]).any(0)).max())


def _is_added(bias: Tensor | None) -> bool:
    """Whether a bias is more than zeros, which some models add where they have none."""
    return bias is not None and bool(bias.any())


def _seen(mask: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Bool (B, T, S), True where a query sees a key; how many entries add something else than 0 or −∞; and how many
    heads' entries hide otherwise than the first head's, None of a mask for all heads."""
    sequences, queries, keys = shape
    if mask.dim() != 4:
        raise UnreadableMaskError(f"its mask has {mask.dim()} axes, and 2 or 4 can be read")
    mask = mask[..., :keys]
    seen = mask if mask.dtype == torch.bool else mask > BLOCKED
    odd = (
        (seen & (mask != 0)).sum()
        if mask.is_floating_point()
        else torch.zeros_like(seen[0, 0, 0, 0], dtype=torch.int64)
    )
    first = seen[:, :1]
    apart = (seen != first).sum() if seen.shape[1] > 1 else None
    return first.expand(sequences, 1, queries, keys)[:, 0], odd, apart


def _own_keys(seen: Tensor) -> Tensor:
    """Queries that see the key at their own place, as those of padding do not: (B, T); all where places differ."""
    sequences, queries, keys = seen.shape
    if queries != keys:
        return seen.new_ones(sequences, queries)
    return seen.diagonal(dim1=1, dim2=2)


def _differences(seen: Tensor, keep: Tensor, key_mask: Tensor, pattern: Pattern) -> Tensor:
    """How many (query, key) of the queries that count are seen against the pattern, or hidden against it."""
    expected = pattern.sees(seen.shape[1], seen.shape[2], seen.device) & key_mask[:, None]
    return ((seen != expected) & keep[:, :, None]).sum()
