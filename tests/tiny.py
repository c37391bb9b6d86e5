"""Random models of every family, small enough to run at once, and a tokenizer that needs no download."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

VOCABULARY = 99
SPECIAL = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3}

_TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_ENCODER = {**_TOKENS, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
_GROUPED = {**_ENCODER, "num_key_value_heads": 2}

CONFIGS: dict[str, Callable[[], Any]] = {
    "bert": lambda: transformers.BertConfig(**_ENCODER, num_hidden_layers=3),
    "gpt2": lambda: transformers.GPT2Config(**_TOKENS, n_embd=32, n_layer=3, n_head=4),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**_ENCODER, num_hidden_layers=3),
    "llama": lambda: transformers.LlamaConfig(**_GROUPED, num_hidden_layers=3),
    "t5": lambda: transformers.T5Config(
        **_TOKENS, d_model=32, d_kv=8, d_ff=48, num_heads=4, num_layers=3, num_decoder_layers=2
    ),
    "albert": lambda: transformers.AlbertConfig(**_ENCODER, embedding_size=16, num_hidden_layers=4),
    "albert_two_groups": lambda: transformers.AlbertConfig(
        **_ENCODER, embedding_size=16, num_hidden_layers=4, num_hidden_groups=2
    ),
    "opt": lambda: transformers.OPTConfig(
        **_TOKENS, hidden_size=32, word_embed_proj_dim=32, num_hidden_layers=3, num_attention_heads=4, ffn_dim=48
    ),
    "mixtral": lambda: transformers.MixtralConfig(**_GROUPED, num_hidden_layers=3),
    "bart": lambda: transformers.BartConfig(
        **_TOKENS,
        d_model=32,
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
    ),
}


def model(family: str) -> nn.Module:
    """The same random model of a family each time."""
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(CONFIGS[family]()).eval()


def tokenizer(*, special: bool = True, pad: bool = True) -> Any:
    """One id a word by its spelling, so that any text has tokens; with or without [CLS] … [SEP] and padding."""
    words = {**SPECIAL, **{f"w{i}": i for i in range(len(SPECIAL), VOCABULARY)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if special:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    names = {"unk_token": "[UNK]", "eos_token": "[SEP]"} | ({"pad_token": "[PAD]"} if pad else {})
    if special:
        names |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def canine_tokenizer(patch: pytest.MonkeyPatch) -> Any:
    """CANINE's, and all that is loaded under ``patch``: without listing all of Unicode anew each time, for seconds."""
    patch.setattr(transformers.CanineTokenizer, "get_vocab", lambda self: dict(self.added_tokens_encoder))
    return transformers.CanineTokenizer()


def given_cache(model: Any, cache: Any) -> dict[str, Any]:
    """The argument that hands on a cache of keys and values, by the name that the installed transformers has for it."""
    parameters = inspect.signature(model.forward).parameters
    return {"cache" if "cache" in parameters else "past_key_values": cache}


def cache_of(output: Any) -> Any:
    """The cache in an output, by either name."""
    return output["cache"] if "cache" in output else output["past_key_values"]


def words(count: int, *, seed: int = 0) -> str:
    """A text of ``count`` words that the tokenizer knows."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(len(SPECIAL), VOCABULARY, (count,), generator=generator)
    return " ".join(f"w{i}" for i in ids.tolist())


def saved(family: str, folder: Path) -> Path:
    """A model folder such as a hub gives."""
    model(family).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
