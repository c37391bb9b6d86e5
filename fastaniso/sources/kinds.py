"""What a caller's data are: texts, images, sounds, or batches ready for the model; told by files and first items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

from fastaniso.sources.datasets import is_dataset
from fastaniso.sources.files import IMAGES, SOUNDS, as_paths, check_exist, files_under
from fastaniso.sources.images import Images, as_images
from fastaniso.sources.sounds import Sounds, as_sounds
from fastaniso.sources.texts import TEXTS, Texts, as_texts

_ITEMS = (
    "paths, or an iterable of strings, of images (Pillow's, or uint8 arrays), of sounds (samples, rate), or of batches "
    "(dicts of tensors for the model's forward)"
)


@dataclass(frozen=True)
class Batches:
    """Batches that go into the model's ``forward`` as they are."""

    name: str
    size: int | None
    identity: str | None
    entries: Iterable[Any]


Data = Texts | Images | Sounds | Batches


def as_data(data: Any, *, field: str = "text") -> Data:
    """The source of what ``data`` is; ``field`` names the column of a table or data set, or the field of a record."""
    if isinstance(data, Data):
        return data
    if paths := as_paths(data):
        check_exist(paths)
        if len(paths) == 1 and (paths[0] / "dataset_info.json").is_file() and (paths[0] / "state.json").is_file():
            return _of_dataset(_saved_dataset(paths[0]), field)
        return _kind_of(paths)(data, field)
    if is_dataset(data):
        return _of_dataset(data, field)
    if isinstance(data, str) or not isinstance(data, Iterable):
        return as_texts(data, field=field)  # which says what is wrong
    return _of_items(iter(data), None, "given in memory")


def files_as(kind: str, paths: list[Path], *, field: str = "text") -> Data:
    """Files and folders as what they were said to be: "text", "images" or "sounds"."""
    if kind == "images":
        return as_images(paths)
    if kind == "sounds":
        return as_sounds(paths)
    data = as_data(paths, field=field)
    if not isinstance(data, Texts):
        raise ValueError(f"data: {data.name} holds {type(data).__name__.lower()}, not texts")
    return data


def _saved_dataset(folder: Path) -> Any:
    try:
        return import_module("datasets").load_from_disk(str(folder))
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"data: {folder} is a saved data set, which needs the package datasets: pip install datasets",
            name="datasets",
        ) from error


def _kind_of(paths: list[Path]) -> Callable[[Any, str], Data]:
    """By the suffixes of the files; a file that was named itself and is of no other kind is plain text."""
    files = list(files_under(paths))
    texts = [f for f in files if f.suffix.lower() in TEXTS or (f in paths and f.suffix.lower() not in IMAGES | SOUNDS)]
    sounds = [file for file in files if file.suffix.lower() in SOUNDS]
    images = [file for file in files if file.suffix.lower() in IMAGES]
    if sounds and {text.with_suffix("") for text in texts} <= {sound.with_suffix("") for sound in sounds}:
        texts = []  # transcripts
    found = [name for name, of_kind in (("texts", texts), ("images", images), ("sounds", sounds)) if of_kind]
    where = ", ".join(str(path) for path in paths)
    if len(found) != 1:
        raise ValueError(
            f"data: {where} holds {' and '.join(found)}; name files of one kind"
            if found
            else f"data: {where} holds no texts ({', '.join(sorted(TEXTS))}), images or sounds"
        )
    if images:
        return lambda data, field: as_images(data)
    if sounds:
        return lambda data, field: as_sounds(data)
    return lambda data, field: replace(as_texts(texts, field=field), name=where, identity=where)


def _of_dataset(dataset: Any, field: str) -> Data:
    columns = getattr(dataset, "column_names", None)
    if isinstance(dataset, Mapping):
        raise TypeError(f"data: expected one split of a data set, got {', '.join(dataset)}; pass dataset[{'train'!r}]")
    if columns is not None and field not in columns:
        raise ValueError(f"field: the data set has no column {field!r}; it has {', '.join(columns)}")
    identity = getattr(dataset, "_fingerprint", None)
    name = f"{type(dataset).__name__} {identity or ''}".strip() + f":{field}"
    return _of_items((_plain(row[field]) for row in dataset), identity and f"{identity}:{field}", name)


def _plain(value: Any) -> Any:
    """A sound of the package datasets as (samples, rate); anything else as it is."""
    if isinstance(value, Mapping) and {"array", "sampling_rate"} <= set(value):
        return value["array"], value["sampling_rate"]
    if hasattr(value, "get_all_samples"):
        samples = value.get_all_samples()
        return samples.data.T.numpy(), samples.sample_rate
    return value


def _of_items(items: Iterator[Any], identity: str | None, name: str) -> Data:
    first = next(items, None)
    if first is None:
        return Texts(f"texts {name}", None, identity, ())
    everything = chain([first], items)
    if isinstance(first, str):
        return Texts(name if identity else f"texts {name}", None, identity, as_texts(everything))
    if isinstance(first, Mapping):
        return Batches(f"batches {name}", None, identity, everything)
    if type(first).__module__.partition(".")[0] == "PIL" or "uint8" in str(getattr(first, "dtype", "")):
        images = as_images(everything)
        return Images(name if identity else images.name, None, identity, images.entries)
    if isinstance(first, tuple) and len(first) == 2:
        sounds = as_sounds(everything)
        return Sounds(name if identity else sounds.name, None, identity, sounds.entries, False)
    raise TypeError(f"data[0]: expected {_ITEMS}, got {type(first).__name__}")
