"""Queries, keys and mask of ``torch.nn.MultiheadAttention``, which projects and attends in one function."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_SIGNATURE = inspect.signature(functional.multi_head_attention_forward)


@dataclass(frozen=True, eq=False)
class MultiHead:
    """``queries`` (B, H, T, d), ``keys`` (B, H, S, d) and ``mask`` as it is added to their scores.

    ``crosses``: keys come from other states; ``has_own_keys``: there are keys beside these.
    """

    queries: Tensor
    keys: Tensor
    mask: Tensor | None
    crosses: bool
    has_own_keys: bool


def multi_head(args: tuple[Any, ...], kwargs: dict[str, Any]) -> MultiHead:
    """What a call of ``multi_head_attention_forward`` scores: its projections are computed a second time."""
    bound = _SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    query, key = (x if x.dim() == 3 else x[:, None] for x in (given["query"].detach(), given["key"].detach()))
    if given["use_separate_proj_weight"]:
        weights = given["q_proj_weight"], given["k_proj_weight"]
    else:
        weights = given["in_proj_weight"].chunk(3)[:2]
    bias = given["in_proj_bias"]
    biases = (None, None) if bias is None else bias.chunk(3)[:2]
    heads = given["num_heads"]
    queries, keys = (
        # (T, B, H·d) → (B, H, T, d)
        functional.linear(x, weight, b).view(*x.shape[:2], heads, -1).permute(1, 2, 0, 3)
        for x, weight, b in zip((query, key), weights, biases, strict=True)
    )
    return MultiHead(
        queries=queries,
        keys=keys,
        mask=_mask(given["attn_mask"], given["key_padding_mask"], queries),
        crosses=given["query"] is not given["key"],
        has_own_keys=bool(given["add_zero_attn"])
        or any(given[name] is not None for name in ("bias_k", "static_k", "static_v")),
    )


def _mask(attention: Tensor | None, padding: Tensor | None, queries: Tensor) -> Tensor | None:
    added = []
    if attention is not None:
        sequences, heads = queries.shape[:2]
        added.append(
            attention[None, None] if attention.dim() == 2 else attention.view(sequences, heads, *attention.shape[1:])
        )
    if padding is not None:
        padding = padding if padding.dim() == 2 else padding[None]
        added.append(padding[:, None, None])
    floats = [
        torch.zeros_like(mask, dtype=queries.dtype).masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask
        for mask in added
    ]
    if len(floats) < 2:
        return floats[0] if floats else None
    return floats[0] + floats[1]
