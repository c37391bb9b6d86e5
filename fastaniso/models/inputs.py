"""What a model's ``forward`` takes for a batch of token ids."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn


def forward_arguments(model: nn.Module, ids: Tensor, attention: Tensor) -> dict[str, Any]:
    """Arguments for one pass without a cache; an encoder–decoder reads the same ids in its decoder."""
    arguments: dict[str, Any] = {"input_ids": ids}
    if takes_attention_mask(model):
        arguments["attention_mask"] = attention
    if feeds_decoder(model):
        arguments["decoder_input_ids"] = ids
        if takes(model, "decoder_attention_mask"):
            arguments["decoder_attention_mask"] = attention
    return arguments | without_cache(model)


def takes(model: nn.Module, argument: str) -> bool:
    """Whether ``forward`` has an argument of that name."""
    return argument in inspect.signature(model.forward).parameters


def takes_attention_mask(model: nn.Module) -> bool:
    """Whether padding can be hidden from the model."""
    return takes(model, "attention_mask")


def without_cache(model: nn.Module) -> dict[str, bool]:
    """Keys and values of every layer would be kept for tokens that never come."""
    return {"use_cache": False} if takes(model, "use_cache") else {}


def feeds_decoder(model: nn.Module) -> bool:
    """Whether the model is an encoder–decoder that wants ids for both stacks."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False)) and takes(
        model, "decoder_input_ids"
    )


def vocabulary(model: nn.Module) -> int | None:
    """The number of ids that the model has embeddings for, if it can say."""
    try:
        embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    except NotImplementedError:  # transformers where there is no one table: CANINE hashes its characters into several
        return None
    return embeddings.num_embeddings if isinstance(embeddings, nn.Embedding) else None


def position_limit(model: nn.Module) -> int | None:
    """The most tokens that the model has positions for, if its configuration says."""
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None
