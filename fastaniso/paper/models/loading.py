"""The model of a line, and what makes its inputs, as ``fastaniso.scan`` takes them."""

from __future__ import annotations

from typing import Any

from fastaniso.paper.models.families import FAMILIES, SCALES, Family, Scale, untrained
from fastaniso.paper.models.figures import FIGURES
from fastaniso.paper.models.list_file import VOCABULARY, Entry
from fastaniso.paper.models.materials import Material
from fastaniso.paper.models.pixels import Pixels
from fastaniso.paper.models.tokenizing import byte_tokens, characters, of_vocabulary, subwords
from fastaniso.paper.options import Size

RATE = 16_000


def loaded(entry: Entry, reads: Material, size: Size, device: str | None) -> dict[str, Any]:
    """``model``, with ``tokenizer``, ``processor`` and ``device`` where they are needed.

    A trained model goes by its name, an untrained one is made here.
    """
    scale, kind = SCALES[size], FIGURES[entry.figure].data
    tokenizer = _tokenizer(entry.tokenizer, entry, reads) if entry.tokenizer else None
    if entry.is_trained:
        return _given(model=entry.source(), tokenizer=tokenizer, device=device)
    if entry.family is None:
        import transformers

        config = transformers.AutoConfig.from_pretrained(entry.source(), trust_remote_code=False)
        model = untrained(config, entry.seed)
        maker = {"tokenizer": tokenizer or entry.source()} if kind == "text" else {"processor": entry.source()}
        return {"model": _placed(model, device), **maker}
    family = FAMILIES[entry.family]
    if kind != "text":
        model = family.model(scale, 0, entry.seed)
        return {"model": _placed(model, device), "processor": _processor(entry.family, kind, scale)}
    tokenizer = tokenizer or _made(family, reads, scale)
    model = family.model(scale, 1 + max(tokenizer.get_vocab().values()), entry.seed)
    return {"model": _placed(model, device), "tokenizer": tokenizer}


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _placed(model: Any, device: str | None) -> Any:
    import torch

    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _tokenizer(asked: str, entry: Entry, reads: Material) -> Any:
    """The tokenizer that a line asks for; a folder or hub id is left to the scan."""
    if asked == "characters":
        return characters(reads.sample())
    if asked == "bytes":
        return byte_tokens()
    if asked.startswith(VOCABULARY):
        return of_vocabulary(entry.found(asked.removeprefix(VOCABULARY)))
    folder = entry.found(asked)
    return str(folder) if folder.is_dir() else asked


def _made(family: Family, reads: Material, scale: Scale) -> Any:
    if family.tokens == "bytes":
        return byte_tokens()
    if family.tokens == "characters":
        return characters(reads.sample())
    begin, end = family.around
    return subwords(reads.sample(), scale.vocabulary, begin=begin, end=end)


def _processor(family: str, kind: str, scale: Scale) -> Any:
    if kind == "images":
        return Pixels(scale.pixels)
    import transformers

    makers: Any = transformers
    if family == "whisper":
        return makers.WhisperFeatureExtractor(chunk_length=scale.seconds, sampling_rate=RATE)
    return makers.Wav2Vec2FeatureExtractor(return_attention_mask=False, sampling_rate=RATE)
