"""Where rows come from: texts as batches of token ids, and stored vectors in blocks, wherever they are stored."""

from fastaniso.sources.batches import Batch, batches
from fastaniso.sources.chunks import Chunk, chunks
from fastaniso.sources.errors import CorruptFileError
from fastaniso.sources.opening import open_source
from fastaniso.sources.shards import Shards
from fastaniso.sources.source import Source
from fastaniso.sources.texts import Text, Texts, as_texts

__all__ = [
    "Batch",
    "Chunk",
    "CorruptFileError",
    "Shards",
    "Source",
    "Text",
    "Texts",
    "as_texts",
    "batches",
    "chunks",
    "open_source",
]
