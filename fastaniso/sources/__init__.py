"""Where rows come from: texts as batches of token ids, and stored vectors as memory-mapped blocks."""

from fastaniso.sources.batches import Batch, batches
from fastaniso.sources.chunks import Chunk, chunks
from fastaniso.sources.texts import Text, Texts, as_texts
from fastaniso.sources.vectors import CorruptFileError, Vectors, open_vectors

__all__ = [
    "Batch",
    "Chunk",
    "CorruptFileError",
    "Text",
    "Texts",
    "Vectors",
    "as_texts",
    "batches",
    "chunks",
    "open_vectors",
]
