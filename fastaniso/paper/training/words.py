"""Text to train on and text that is held out, and the tokens of both."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastaniso.paper.training.sizes import ProbeSet

PAD, CLS, SEP, MASK = "[PAD]", "[CLS]", "[SEP]", "[MASK]"
HELD_OUT = 0.1  # of the text, at its end


@dataclass(frozen=True)
class Text:
    """The text that was given: its files, its size, what identifies it, and its two parts."""

    files: tuple[str, ...]
    size: int
    digest: str
    training: str
    held_out: str


def read_text(files: Sequence[Path]) -> Text:
    """Read the files one after the other, and hold out the last tenth, from the beginning of a line."""
    if not files:
        raise ValueError("text: the experiment training reads text; expected at least one file, got none: --text FILE")
    whole = "\n\n".join(file.read_text(encoding="utf-8") for file in files)
    cut = whole.rfind("\n", 0, int(len(whole) * (1 - HELD_OUT))) + 1
    encoded = whole.encode()
    digest = hashlib.sha256(encoded).hexdigest()
    return Text(tuple(file.name for file in files), len(encoded), digest, whole[:cut], whole[cut:])


def train_tokenizer(text: str, vocabulary: int, length: int, *, enclose: bool) -> Any:
    """Byte-level BPE of ``text`` as a tokenizer of transformers; ``enclose`` puts [CLS] and [SEP] around a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, CLS, SEP, MASK]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [text],
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    if enclose:
        ids = [(token, tokenizer.token_to_id(token)) for token in (CLS, SEP)]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{CLS} $A {SEP}", special_tokens=ids)
    names = (
        {"pad_token": PAD, "cls_token": CLS, "sep_token": SEP, "mask_token": MASK} if enclose else {"pad_token": PAD}
    )
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=tokenizer, model_max_length=length, **names)


def token_ids(tokenizer: Any, text: str) -> Tensor:
    """The ids of a text, without special tokens."""
    return torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


@dataclass(frozen=True, eq=False)
class Sequences:
    """Held-out sequences (sequences, length): ids, which of them are no padding, and which are no special tokens."""

    ids: Tensor
    attention_mask: Tensor
    keep: Tensor

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.ids)


def probe_sequences(tokenizer: Any, text: str, size: ProbeSet, *, length: int | None = None) -> Sequences:
    """Runs of ``size.words`` words of ``text``, cut to ``length`` tokens; of more than are wanted a seeded choice."""
    words = re.findall(r"\S+\s*", text)
    runs = ["".join(words[start : start + size.words]) for start in range(0, len(words), size.words)]
    if len(runs) > 1:
        runs = [run for run in runs if len(run.split()) == size.words] or runs
    if len(runs) > size.sequences:
        drawn = torch.randperm(len(runs), generator=torch.Generator().manual_seed(0))[: size.sequences]
        runs = [runs[index] for index in sorted(drawn.tolist())]
    if not runs:
        raise ValueError("text: there are no words to measure; give a longer text")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    encoded = tokenizer(
        runs,
        truncation=True,
        max_length=length or size.length,
        padding=True,
        return_special_tokens_mask=True,
        return_tensors="pt",
    )
    attended = encoded["attention_mask"]
    keep = attended.bool() & ~encoded["special_tokens_mask"].bool()
    return Sequences(encoded["input_ids"], attended, keep)
