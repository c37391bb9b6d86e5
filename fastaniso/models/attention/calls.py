"""One call of an attention, whichever way it is computed: its queries and keys, its mask and its scale.

Queries and keys are final here: normed, rotated, and as many heads of keys as the attention is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fastaniso.models.attention.multi_head import MultiHead
from fastaniso.models.attention.scores import TracedScores


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """What one call of an attention was given.

    ``queries`` (B, H, T, d) and ``keys`` (B, G, S, d); ``mask`` as the model made it, None for none: (B, S) or
    broadcast to (B, H, T, S), bool (True attends) or added to the scores. ``causal`` is what the call asks for where
    the mask does not tell; ``window`` the keys that a causal query sees. ``bias`` is added to the scores by place;
    ``changes`` names what else is done to them.
    """

    module: nn.Module
    queries: Tensor
    keys: Tensor
    mask: Any
    causal: bool
    window: int | None
    scale: float
    bias: Tensor | None
    changes: tuple[str, ...]
    crosses: bool | None = None


def of_product(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionCall:
    """What ``scaled_dot_product_attention`` is given."""
    if attn_mask is not None:
        attn_mask = attn_mask[(None,) * (4 - attn_mask.dim())]
    return AttentionCall(
        module=module,
        queries=query.detach(),
        # Causal products are aligned at the first key: later keys are seen by no query.
        keys=key[..., : query.shape[-2], :].detach() if is_causal else key.detach(),
        mask=attn_mask,
        causal=is_causal,
        window=None,
        scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
        bias=None,
        changes=(),
    )


def of_interface(
    module: nn.Module, query: Tensor, key: Tensor, mask: Any, *, eager: bool, options: dict[str, Any]
) -> AttentionCall:
    """What an attention function of transformers is given."""
    causal = options.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", True)
    causal = bool(causal) and not (eager and mask is None)  # eager attention masks what it is told to and nothing else
    scale = options.get("scaling")
    changes = {
        "a soft cap": options.get("softcap") is not None,
        "a learned sink": options.get("s_aux") is not None or getattr(module, "sinks", None) is not None,
    }
    return AttentionCall(
        module=module,
        queries=query.detach(),
        keys=key.detach(),
        mask=mask,
        causal=causal,
        window=options.get("sliding_window"),
        scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
        bias=options.get("position_bias"),
        changes=tuple(name for name, made in changes.items() if made),
    )


def of_multi_head(module: nn.Module, call: MultiHead) -> AttentionCall:
    """What ``multi_head_attention_forward`` is given."""
    return AttentionCall(
        module=module,
        queries=call.queries,
        keys=call.keys,
        mask=call.mask,
        causal=False,
        window=None,
        scale=call.queries.shape[-1] ** -0.5,
        bias=None,
        changes=("keys of its own",) if call.has_own_keys else (),
        crosses=call.crosses,
    )


def of_scores(module: nn.Module, scores: TracedScores) -> AttentionCall:
    """What a module computed scores of."""
    return AttentionCall(
        module=module,
        queries=scores.queries,
        keys=scores.keys,
        mask=None if scores.added is None else scores.added[(None,) * (4 - scores.added.dim())],
        causal=scores.added is not None and bool(getattr(module, "is_decoder", False)),
        window=None,
        scale=scores.scale,
        bias=None,
        changes=(),
    )
