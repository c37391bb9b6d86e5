"""A measurement under way, kept in a folder: what was asked of which rows, and the states so far."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastaniso._version import __version__
from fastaniso.scanning.saving import state_path
from fastaniso.state import CorruptStateError, State, load_state, save_state

FORMAT_VERSION = 1

SECONDS = 3.0
"""Between two times that states are saved: what a process that is killed loses at most, and the step under way."""

SHARE = 0.05
"""Of the time that saving may take: large states are saved more rarely."""

STATES = ("vectors", "pairs", "neighbors")

_RUN = "run.json"

S = TypeVar("S", bound=State)


class MeasureInterrupted(KeyboardInterrupt):
    """A measurement was interrupted; ``checkpoint.save(folder)`` keeps what is done, ``resume=folder`` goes on."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """With the states so far."""
        super().__init__()
        self.checkpoint = checkpoint


class Checkpoint:
    """States by name, each after its last step; written to ``folder`` every few seconds where there is one.

    ``identity`` tells the rows (``rows``, a fingerprint), and the options that the states depend on. ``names`` are what
    the states call the sources: those of the first run, however a later one spells its paths.
    """

    def __init__(self, folder: Path | None, names: list[str], rows: Any, options: Mapping[str, Any]) -> None:
        """Take up what is in ``folder``; ``ValueError`` if it is of other rows or options."""
        self.folder = folder
        self.names = names
        # As JSON gives it back, so that what was stored compares equal.
        self._identity = json.loads(json.dumps({"rows": rows, "options": options, "fastaniso": __version__}))
        self._states: dict[str, State] = {}
        self._unsaved: set[str] = set()
        self._saved_at = time.monotonic()
        self._pause = SECONDS
        self._is_taken_up = folder is not None and (folder / _RUN).is_file()
        if folder is not None and self._is_taken_up:
            self._take_up(folder)

    @property
    def default_folder(self) -> Path:
        """Where an interrupted run is kept that was not given a folder: always the same for the same measurement."""
        digest = hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()
        return Path(f"fastaniso-measure-{digest[:8]}")

    @property
    def states(self) -> Mapping[str, State]:
        """The states so far, by name."""
        return self._states

    def state(self, name: str, empty: S) -> S:
        """The state to go on from: the one kept under ``name``, or ``empty``."""
        if self.folder is None or not self._is_taken_up or not state_path(self.folder, name).is_file():
            return empty
        kept = load_state(state_path(self.folder, name))
        if not isinstance(kept, type(empty)) or kept.dim != empty.dim:
            raise CorruptStateError(f"resume: {self.folder} holds a state of something else as {name!r}")
        self._states[name] = kept
        return kept

    def keep(self, name: str, state: State) -> None:
        """Take the state after a step; write to the folder what is not there yet if the last time is long ago."""
        self._states[name] = state
        self._unsaved.add(name)
        if self.folder is not None and time.monotonic() - self._saved_at > self._pause:
            self.save(self.folder)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write everything that is not in ``folder`` yet, each file by atomic rename."""
        began = time.monotonic()
        folder = Path(folder)
        (folder / "states").mkdir(parents=True, exist_ok=True)
        if not (folder / _RUN).is_file():
            self._begin(folder)
        for name in sorted(self._unsaved if folder == self.folder else self._states):
            save_state(self._states[name], state_path(folder, name))
        if folder == self.folder:
            self._unsaved.clear()
        self._saved_at = time.monotonic()
        self._pause = max(SECONDS, (self._saved_at - began) / SHARE)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever ends the body, what is done is saved where there is a folder; an interruption carries it along."""
        try:
            try:
                yield
            finally:
                if self.folder is not None and self._unsaved:
                    self.save(self.folder)
        except KeyboardInterrupt as error:
            if self.folder is None and not self._states:
                raise
            raise MeasureInterrupted(self) from error

    def _begin(self, folder: Path) -> None:
        for name in STATES:
            # Of other results in this folder: nobody must go on from them.
            state_path(folder, name).unlink(missing_ok=True)
        content = {"kind": "measurement", "format": FORMAT_VERSION, "names": self.names, **self._identity}
        temporary = folder / f".{_RUN}.{os.getpid()}"
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, folder / _RUN)

    def _take_up(self, folder: Path) -> None:
        try:
            content = json.loads((folder / _RUN).read_text(encoding="utf-8"))
            names = [str(name) for name in content["names"]]
            sound = content["kind"] == "measurement" and content["format"] == FORMAT_VERSION
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptStateError(f"resume: {folder / _RUN} is damaged ({error}); choose another folder") from error
        if not sound or len(names) != len(self.names):
            self._refuse(folder, "other files")
        if content.get("rows") != self._identity["rows"]:
            self._refuse(folder, "other rows, or files that were changed since")
        ours, theirs = self._identity["options"], content.get("options", {})
        different = [f"{n}={theirs.get(n)!r} and not {ours[n]!r}" for n in ours if theirs.get(n) != ours[n]]
        if different:
            self._refuse(folder, f"options {', '.join(different)}")
        if content.get("fastaniso") != __version__:
            self._refuse(folder, f"fastaniso {content.get('fastaniso')} and not {__version__}")
        self.names = names
        for left in (folder / "states").glob(".*.safetensors.*"):
            left.unlink()  # half written when the last run was killed

    def _refuse(self, folder: Path, what: str) -> None:
        raise ValueError(
            f"resume: {folder} holds a measurement of {what}; choose another folder, or delete this one to start anew"
        )
