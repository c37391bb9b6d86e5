"""Queries and keys of attention heads: what a caller passed, checked and viewed; never copied, converted or moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastaniso.rows import DTYPES, as_tensor


@dataclass(frozen=True)
class Heads:
    """``queries`` (B, H, T, d), ``keys`` (B, G, S, d), and which are kept, ``query_mask`` (B, T), ``key_mask`` (B, S).

    Head h reads keys h // (H / G). Masks are contiguous bool, None keeps all; last axes are contiguous.
    """

    queries: Tensor
    keys: Tensor
    query_mask: Tensor | None
    key_mask: Tensor | None

    @property
    def count(self) -> int:
        """Heads that have queries: H."""
        return self.queries.shape[1]

    @property
    def dim(self) -> int:
        """Numbers in a query: d."""
        return self.queries.shape[3]

    @property
    def rows(self) -> int:
        """Queries of a head, masked ones included: B·T."""
        return self.queries.shape[0] * self.queries.shape[2]


def as_heads(queries: Any, keys: Any, query_mask: Any = None, key_mask: Any = None) -> Heads:
    """View queries (B, H, T, d) and keys (B, G, S, d): tensors, NumPy arrays, or anything with DLPack."""
    ours, theirs = _as_vectors(queries, "queries", "H, T"), _as_vectors(keys, "keys", "G, S")
    if theirs.dtype != ours.dtype:
        raise TypeError(f"keys: expected the queries' dtype {_words(ours.dtype)}, got {_words(theirs.dtype)}")
    if theirs.device != ours.device:
        raise ValueError(f"keys: expected them on {ours.device} beside the queries, got {theirs.device}")
    if theirs.shape[0] != ours.shape[0] or theirs.shape[3] != ours.shape[3]:
        raise ValueError(
            f"keys: expected (B, G, S, d) with B = {ours.shape[0]} and d = {ours.shape[3]} as the queries have, "
            f"got shape {tuple(theirs.shape)}"
        )
    if not ours.shape[1] or not theirs.shape[1] or ours.shape[1] % theirs.shape[1]:
        raise ValueError(
            f"queries: expected a number of heads that is a multiple of that of the keys, {theirs.shape[1]}, "
            f"got {ours.shape[1]}; head h reads keys h // (H / G)"
        )
    return Heads(
        ours,
        theirs,
        _as_mask(query_mask, ours, "query_mask", "queries"),
        _as_mask(key_mask, theirs, "key_mask", "keys"),
    )


def key_span(queries: int, keys: int, causal: bool, window: int | None) -> tuple[int, int]:
    """``(first, stop)``: query i sees keys j with i + first ≤ j < i + stop, as far as there are keys.

    Queries are aligned with the last keys: query i stands at key i + S − T. Causal, it sees keys up to there, the last
    ``window`` of them; else ``window`` keys (an odd number) with its own in the middle.
    """
    if not causal and window is None:
        return -queries, keys
    if queries > keys:
        raise ValueError(
            f"keys: {'causal attention' if causal else 'a window'} needs a key at every query, "
            f"got {queries} queries and {keys} keys"
        )
    own = keys - queries
    if window is not None and window < 1:
        raise ValueError(f"window: expected the number of keys that a query sees, 1 or more, or None, got {window}")
    if causal:
        return (-queries if window is None else own - window + 1), own + 1
    assert window is not None
    if window % 2 == 0:
        raise ValueError(
            f"window: expected an odd number of keys, the query's own in the middle, got {window}; "
            "pass causal=True for a window that ends there"
        )
    return own - window // 2, own + window // 2 + 1


def _as_vectors(array: Any, name: str, axes: str) -> Tensor:
    tensor = as_tensor(array, name).detach()
    if tensor.dtype not in DTYPES:
        raise TypeError(
            f"{name}: expected float32, float64, float16 or bfloat16, got {_words(tensor.dtype)}; "
            f"convert them first, for example {name}.float()"
        )
    if tensor.dim() != 4:
        raise ValueError(
            f"{name}: expected (B, {axes}, d), got shape {tuple(tensor.shape)}; one sequence is {name}[None]"
        )
    if tensor.shape[3] == 0:
        raise ValueError(f"{name}: expected vectors of at least one number, got shape {tuple(tensor.shape)}")
    if tensor.stride(3) != 1 and tensor.shape[3] > 1:
        raise ValueError(
            f"{name}: expected the numbers of a vector side by side (last stride 1), got strides {tensor.stride()}; "
            f"pass {name}.contiguous()"
        )
    return tensor


def _as_mask(mask: Any, vectors: Tensor, name: str, of: str) -> Tensor | None:
    if mask is None:
        return None
    given = as_tensor(mask, name)
    if given.dtype != torch.bool:
        raise TypeError(f"{name}: expected bool (True keeps), got {_words(given.dtype)}; pass {name}.bool()")
    if given.shape != (vectors.shape[0], vectors.shape[2]):
        raise ValueError(
            f"{name}: expected {(vectors.shape[0], vectors.shape[2])}, one a sequence and position of the {of}, "
            f"got {tuple(given.shape)}"
        )
    if given.device != vectors.device:
        raise ValueError(f"{name}: expected it on {vectors.device} beside the {of}, got {given.device}")
    return given.contiguous()


def _words(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
