"""Tokenizers that need no download: made of the text at hand, for untrained models, and of a list of tokens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PADDING, BEGIN, END, UNKNOWN = "[PAD]", "[CLS]", "[SEP]", "[UNK]"


def subwords(text: str, size: int, *, begin: bool, end: bool) -> Any:
    """``size`` subwords of the text by byte-pair encoding; [CLS] begins and [SEP] ends a sequence where asked for."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PADDING, BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(text.splitlines(), trainer)
    return _fast(backend, {PADDING: 0, BEGIN: 1, END: 2}, begin=begin, end=end)


def characters(text: str) -> Any:
    """Code points as ids, between CANINE's [CLS] and [SEP]; what is not in ``text`` is U+FFFD.

    CANINE's own tokenizer gives the same ids, and lists all of Unicode first, which takes seconds.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    special = {PADDING: 0, BEGIN: 0xE000, END: 0xE001}
    known = {character: ord(character) for character in sorted({*text, "\ufffd"} - {"\0"})}
    backend = Tokenizer(models.WordLevel({**known, **special}, unk_token="\ufffd"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return _fast(backend, special, begin=True, end=True)


def byte_tokens() -> Any:
    """Bytes as ids, three more than each, with 1 after a sequence and 0 for padding.

    ByT5's own tokenizer gives the same ids, and takes a text byte by byte in Python.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = {PADDING: 0, END: 1}
    # ByteLevel writes a byte that can be printed as that character, and the others, in order, from U+0100 on.
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {chr(byte if byte in shown else 256 + hidden.index(byte)): byte + 3 for byte in range(256)}
    backend = Tokenizer(models.BPE(vocab={**special, **letters}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _fast(backend, special, begin=False, end=True)


def of_vocabulary(file: Path) -> Any:
    """A token a line, its id the number of the line from 0; of a text, less its spaces, the longest that fits is taken.

    A character that begins none is [UNK]. [CLS] and [SEP] stand around a sequence where the vocabulary has them.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    words = {word: number for number, word in enumerate(file.read_text(encoding="utf-8").splitlines())}
    special = {word: words[word] for word in (PADDING, UNKNOWN, BEGIN, END) if word in words}
    if UNKNOWN not in words:
        raise ValueError(f"{file}: expected a vocabulary with {UNKNOWN}, a token a line, got {len(words)} without it")
    backend = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    longest_first = sorted(filter(None, words), key=lambda word: (-len(word), word))
    pattern = "|".join([*map(re.escape, longest_first), r"\S"])
    spaces = pre_tokenizers.WhitespaceSplit()
    backend.pre_tokenizer = pre_tokenizers.Sequence([spaces, pre_tokenizers.Split(Regex(pattern), "isolated")])
    return _fast(backend, special, begin=BEGIN in words, end=END in words)


def _fast(backend: Any, special: dict[str, int], *, begin: bool, end: bool) -> Any:
    import transformers
    from tokenizers import processors

    maker: Any = transformers.PreTrainedTokenizerFast
    around = [word for word, asked in ((BEGIN, begin), (END, end)) if asked]
    if around:
        single = " ".join([*([BEGIN] if begin else []), "$A", *([END] if end else [])])
        pairs = [(word, special[word]) for word in around]
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=pairs)
    roles = {PADDING: "pad_token", UNKNOWN: "unk_token", BEGIN: "cls_token", END: "sep_token"}
    names = {role: word for word, role in roles.items() if word in special}
    return maker(tokenizer_object=backend, **names)
