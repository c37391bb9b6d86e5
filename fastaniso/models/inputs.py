"""What a model's ``forward`` takes for a batch of token ids."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn


def forward_arguments(model: nn.Module, ids: Tensor, attention: Tensor) -> dict[str, Any]:
    """Arguments for one pass without a cache; an encoder–decoder reads the same ids in its decoder."""
    parameters = inspect.signature(model.forward).parameters
    arguments: dict[str, Any] = {"input_ids": ids}
    if takes_attention_mask(model):
        arguments["attention_mask"] = attention
    if feeds_decoder(model):
        arguments["decoder_input_ids"] = ids
        if "decoder_attention_mask" in parameters:
            arguments["decoder_attention_mask"] = attention
    if "use_cache" in parameters:
        # Keys and values of every layer would be kept for tokens that never come.
        arguments["use_cache"] = False
    return arguments


def takes_attention_mask(model: nn.Module) -> bool:
    """Whether padding can be hidden from the model."""
    return "attention_mask" in inspect.signature(model.forward).parameters


def feeds_decoder(model: nn.Module) -> bool:
    """Whether the model is an encoder–decoder that wants ids for both stacks."""
    return (
        bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
        and "decoder_input_ids" in inspect.signature(model.forward).parameters
    )


def vocabulary(model: nn.Module) -> int | None:
    """The number of ids that the model has embeddings for, if it can say."""
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    return embeddings.num_embeddings if isinstance(embeddings, nn.Embedding) else None


def position_limit(model: nn.Module) -> int | None:
    """The most tokens that the model has positions for, if its configuration says."""
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None
