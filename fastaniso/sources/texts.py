"""Texts from files and iterables, in pieces of bounded size: no file is ever loaded whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastaniso.sources.text_tables import parquet_texts

TEXTS = frozenset({".txt", ".md", ".jsonl", ".parquet"})
"""Suffixes of the files that a folder of texts is read from."""

PIECE = 1 << 18
"""Characters of a text file read at once."""


@dataclass(frozen=True)
class Text:
    """A text, or a piece of one, and the bytes of its source that it stands for (0 where the source has no size).

    ``begins`` is False for a piece that goes on where the piece before it stopped.
    """

    content: str
    bytes: float
    begins: bool = True


@dataclass(frozen=True)
class Texts:
    """A source of texts: its name for the record, its size in bytes if known, and the pieces, read as they are asked.

    ``identity`` names the source so that two scans of the same data can be told from scans of disjoint data; None for
    an iterable of strings.
    """

    name: str
    size: int | None
    identity: str | None
    pieces: Iterable[Text]

    def __iter__(self) -> Iterator[Text]:
        """The pieces in order."""
        return iter(self.pieces)


def as_texts(data: Any, *, field: str = "text") -> Texts:
    """A ``Path`` or several (plain text; ``.jsonl`` and ``.parquet`` by ``field``), or an iterable of texts."""
    if isinstance(data, Texts):
        return data
    if isinstance(data, str):
        raise TypeError(
            "data: a str may be a text or a file; pass pathlib.Path(...) for a file, or a list of texts as [text, ...]"
        )
    if isinstance(data, os.PathLike):
        data = [data]
    if isinstance(data, Sequence) and data and all(isinstance(item, os.PathLike) for item in data):
        return _files([Path(path) for path in data], field)
    if isinstance(data, Iterable):
        return Texts("texts given in memory", None, None, _strings(data))
    raise TypeError(f"data: expected paths, or an iterable of strings, got {type(data).__name__}")


def _files(paths: list[Path], field: str) -> Texts:
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"data: there is no file {str(path)!r}")
    names = ", ".join(str(path) for path in paths)
    return Texts(names, sum(path.stat().st_size for path in paths), names, _Files(paths, field))


@dataclass(frozen=True)
class _Files:
    """Files that can be read again from the start."""

    paths: list[Path]
    field: str

    def __iter__(self) -> Iterator[Text]:
        for path in self.paths:
            if path.suffix == ".jsonl":
                yield from _records(path, self.field)
            elif path.suffix == ".parquet":
                yield from (Text(text or "", share) for text, share in parquet_texts(path, self.field))
            else:
                yield from _running_text(path)


def _running_text(path: Path) -> Iterator[Text]:
    """Pieces that end between words (a single word longer than a piece is cut)."""
    rest, begins = "", True
    try:
        with path.open(encoding="utf-8") as file:
            while piece := file.read(PIECE):
                end = max(piece.rfind(" "), piece.rfind("\n"))
                content, left = (rest + piece[:end], piece[end:]) if end > 0 else (rest + piece, "")
                yield Text(content, len(content.encode()), begins)
                rest, begins = left, False
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text ({error.reason} at byte {error.start} of a block)") from error
    if rest.strip():
        yield Text(rest, len(rest.encode()), begins)


def _records(path: Path, field: str) -> Iterator[Text]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(record, dict) or not isinstance(record.get(field), str):
                known = f"; it has {', '.join(sorted(record))}" if isinstance(record, dict) else ""
                raise ValueError(f"{path}, line {number}: expected an object with a string {field!r}{known}")
            yield Text(record[field], len(line))


def _strings(texts: Iterable[Any]) -> Iterator[Text]:
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"data[{index}]: expected a str, got {type(text).__name__}")
        yield Text(text, 0)
