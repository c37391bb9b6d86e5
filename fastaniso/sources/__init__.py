"""Where rows come from: texts, images and sounds for models, and stored vectors in blocks, wherever they are."""

from fastaniso.sources.batches import Batch, batches
from fastaniso.sources.chunks import Chunk, chunks
from fastaniso.sources.errors import CorruptFileError
from fastaniso.sources.images import Image, Images, as_images
from fastaniso.sources.kinds import Batches, Data, as_data, files_as
from fastaniso.sources.locations import RemotePath, as_location, name_under
from fastaniso.sources.opening import open_source
from fastaniso.sources.shards import Shards
from fastaniso.sources.skips import Skips
from fastaniso.sources.sounds import Clip, Sounds, as_sounds
from fastaniso.sources.source import Source
from fastaniso.sources.texts import Text, Texts, as_texts

__all__ = [
    "Batch",
    "Batches",
    "Chunk",
    "Clip",
    "CorruptFileError",
    "Data",
    "Image",
    "Images",
    "RemotePath",
    "Shards",
    "Skips",
    "Sounds",
    "Source",
    "Text",
    "Texts",
    "as_data",
    "as_images",
    "as_location",
    "as_sounds",
    "as_texts",
    "batches",
    "chunks",
    "files_as",
    "name_under",
    "open_source",
]
