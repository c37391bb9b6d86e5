"""Texts in batches, a language model's loss on them, and its states before and after the final norm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORDS = 60
"""Texts in files are cut into runs of so many words."""
BATCH = 16
MASKED_SHARE = 0.15


@dataclass(frozen=True)
class Batch:
    """``keep`` is False at padding and special tokens."""

    ids: Tensor
    attention_mask: Tensor
    keep: Tensor


def batches(tokenizer: Any, data: Any, *, length: int, most_tokens: int, device: str) -> list[Batch]:
    """At most ``most_tokens`` kept tokens, of sequences of at most ``length``, special tokens included."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    pieces, found, left = list(_pieces(data)), [], most_tokens
    for at in range(0, len(pieces), BATCH):
        made = tokenizer(
            pieces[at : at + BATCH],
            padding=True,
            truncation=True,
            max_length=length,
            return_special_tokens_mask=True,
            return_tensors="pt",
        )
        attended = made["attention_mask"].bool()
        keep = attended & ~made["special_tokens_mask"].bool()
        keep &= keep.flatten().cumsum(0).view_as(keep) <= left
        left -= int(keep.sum())
        if keep.any():
            found.append(Batch(*(part.to(device) for part in (made["input_ids"], attended.long(), keep))))
        if left <= 0:
            break
    if not found:
        raise LookupError("the text holds no token that could be measured")
    return found


def _pieces(data: Iterable[Any]) -> Iterator[str]:
    for item in data:
        if isinstance(item, Path):
            words = item.read_text(encoding="utf-8").split()
            yield from (" ".join(words[at : at + WORDS]) for at in range(0, len(words), WORDS))
        else:
            yield item


def loss(network: Any, kind: str, read: Iterable[Batch], mask_token: int | None) -> dict[str, Any]:
    """Mean cross-entropy in nats of the tokens to predict, and the logarithm of how many tokens there are.

    A causal model predicts the next of kept tokens, a masked one 15 % of them behind the mask, drawn from seed 0.
    """
    if kind != "causal" and mask_token is None:
        return {}
    generator, total, count, choices = torch.Generator().manual_seed(0), 0.0, 0, 0
    for batch in read:
        inputs, aims = batch.ids, batch.keep
        if kind != "causal":
            aims = aims & (torch.rand(aims.shape, generator=generator) < MASKED_SHARE).to(aims.device)
            inputs = inputs.masked_fill(aims, int(mask_token or 0))
        logits = network(input_ids=inputs, attention_mask=batch.attention_mask).logits
        targets, logits = (batch.ids[:, 1:], logits[:, :-1]) if kind == "causal" else (batch.ids, logits)
        aims = aims[:, 1:] & batch.keep[:, :-1] if kind == "causal" else aims
        total += float(F.cross_entropy(logits[aims].double(), targets[aims], reduction="sum"))
        count, choices = count + int(aims.sum()), logits.shape[-1]
    if not count:
        return {}
    return {"loss": total / count, "chance": float(torch.tensor(float(choices)).log()), "predicted": count}


def around_final_norm(network: nn.Module, read: Iterable[Batch]) -> tuple[Tensor, Tensor] | None:
    """Kept states that go into the final norm and that come out of it, row by row; None of a model without such a norm.

    It is the norm outside of the blocks that takes what the last block gives.
    """
    before: list[Tensor] = []
    after: list[Tensor] = []
    for batch in read:
        with _watched(network) as seen:
            network(input_ids=batch.ids, attention_mask=batch.attention_mask)
        if len(seen) != 1:
            return None
        ((given, normed),) = seen
        before.append(given[batch.keep].float())
        after.append(normed[batch.keep].float())
    return torch.cat(before), torch.cat(after)


@contextmanager
def _watched(network: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    blocks = max(lists, key=len, default=nn.ModuleList())
    inside = {id(module) for block in blocks for module in block.modules()}
    last: list[Any] = [None]
    seen: list[tuple[Tensor, Tensor]] = []

    def passed(_: nn.Module, __: Any, output: Any) -> None:
        last[0] = output[0] if isinstance(output, tuple) else output

    def normed(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if inputs and inputs[0] is last[0]:
            seen.append((inputs[0], output))

    norms = [m for m in network.modules() if "Norm" in type(m).__name__ and id(m) not in inside]
    handles = [block.register_forward_hook(passed) for block in blocks]
    handles += [norm.register_forward_hook(normed) for norm in norms]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
