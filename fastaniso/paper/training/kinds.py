"""The two kinds of language model that are trained: BERT, which fills in masked tokens, and GPT-2, which goes on.

Neither ties its output head to its embedding, so that input and output embeddings can be told apart afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaniso.paper.training.sizes import Budget
from fastaniso.paper.training.words import Sequences

IGNORED = -100
MASKED_SHARE = 0.15


@dataclass(frozen=True)
class Kind:
    """A kind of model: how it is made, a batch of its training, and its targets on sequences that are held out.

    ``batch`` takes the ids of the text, the ids that are drawn from and a generator; both functions give inputs and
    targets of one shape, targets ``IGNORED`` where nothing is predicted.
    """

    name: str
    title: str
    family: str
    encloses: bool
    build: Callable[[Budget, Any], nn.Module]
    batch: Callable[[Tensor, Budget, Any, torch.Generator], tuple[Tensor, Tensor]]
    held_out: Callable[[Sequences, Any], tuple[Tensor, Tensor]]


def loss(network: nn.Module, inputs: Tensor, targets: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Mean cross-entropy in nats of the targets that are not ``IGNORED``."""
    logits = network(input_ids=inputs, attention_mask=attention_mask).logits
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def _bert(budget: Budget, tokenizer: Any) -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    network: nn.Module = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=budget.width,
            num_hidden_layers=budget.layers,
            num_attention_heads=budget.heads,
            intermediate_size=4 * budget.width,
            max_position_embeddings=budget.length,
            hidden_dropout_prob=budget.dropout["masked"],
            attention_probs_dropout_prob=budget.dropout["masked"],
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        )
    )
    return network


def _gpt2(budget: Budget, tokenizer: Any) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    network: nn.Module = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=budget.width,
            n_layer=budget.layers,
            n_head=budget.heads,
            n_positions=budget.length,
            embd_pdrop=budget.dropout["causal"],
            attn_pdrop=budget.dropout["causal"],
            resid_pdrop=budget.dropout["causal"],
            bos_token_id=None,
            eos_token_id=None,
            tie_word_embeddings=False,
        )
    )
    return network


def _runs(ids: Tensor, count: int, length: int, generator: torch.Generator) -> Tensor:
    """``count`` runs of ``length`` ids from anywhere in the text."""
    starts = torch.randint(len(ids) - length + 1, (count, 1), generator=generator)
    return ids[starts + torch.arange(length)]


def _masked_batch(ids: Tensor, budget: Budget, tokenizer: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    runs = _runs(ids, budget.batch, budget.length - 2, generator)
    enclosed = F.pad(F.pad(runs, (1, 0), value=tokenizer.cls_token_id), (0, 1), value=tokenizer.sep_token_id)
    keep = torch.ones_like(enclosed, dtype=torch.bool)
    keep[:, [0, -1]] = False
    return _masked(enclosed, keep, tokenizer, generator)


def _masked(ids: Tensor, keep: Tensor, tokenizer: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As BERT: of 15 % of the tokens four in five are masked, one in ten is any other and one in ten stays."""
    chosen = (torch.rand(ids.shape, generator=generator) < MASKED_SHARE) & keep
    how = torch.rand(ids.shape, generator=generator)
    any_token = torch.randint(len(tokenizer), ids.shape, generator=generator)
    inputs = torch.where(chosen & (how < 0.8), tokenizer.mask_token_id, ids)
    inputs = torch.where(chosen & (how >= 0.9), any_token, inputs)
    return inputs, torch.where(chosen, ids, IGNORED)


def _causal_batch(ids: Tensor, budget: Budget, tokenizer: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    runs = _runs(ids, budget.batch, budget.length + 1, generator)
    return runs[:, :-1], runs[:, 1:]


def _masked_held_out(sequences: Sequences, tokenizer: Any) -> tuple[Tensor, Tensor]:
    return _masked(sequences.ids, sequences.keep, tokenizer, torch.Generator().manual_seed(0))


def _causal_held_out(sequences: Sequences, tokenizer: Any) -> tuple[Tensor, Tensor]:
    targets = torch.where(sequences.keep, sequences.ids, IGNORED)
    return sequences.ids, F.pad(targets[:, 1:], (0, 1), value=IGNORED)


KINDS = (
    Kind("masked", "masked LM", "BERT", True, _bert, _masked_batch, _masked_held_out),
    Kind("causal", "causal LM", "GPT-2", False, _gpt2, _causal_batch, _causal_held_out),
)
