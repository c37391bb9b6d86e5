"""What a scan measures of each batch: hidden states, and attentions where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from fastaniso.models import tapped
from fastaniso.scanning.attention.positions import BatchPositions
from fastaniso.scanning.attention.reader import AttentionReader
from fastaniso.scanning.dealing import Turn
from fastaniso.scanning.modalities import ModelBatch
from fastaniso.scanning.reader import Reader
from fastaniso.scanning.subject import Subject
from fastaniso.state import State


class Readers:
    """The sums of a scan, batch by batch; those of other processes, kept or alive, can be added to them."""

    def __init__(
        self, subject: Subject, identity: str | None, *, gram: bool, attention: bool, backend: str, invalid: str
    ) -> None:
        """Nothing read yet; ``identity`` names what will be read."""
        self._subject = subject
        self._stacks = subject.anatomy.stacks
        self.hidden = Reader(subject.anatomy, identity, gram=gram, backend=backend, invalid=invalid)
        self.heads = (
            AttentionReader(subject.network, self._stacks, backend=backend, invalid=invalid) if attention else None
        )
        self.is_resumable = True
        """Whether the sums are those of whole batches, and of this process alone: what can be kept to go on from."""

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Watch the model inside the ``with``."""
        with (
            tapped(self._subject.network, self._stacks, self.hidden.receive),
            self.heads.attached() if self.heads else nullcontext(),
        ):
            yield

    def learn(self) -> None:
        """Read the first batch for the patterns of its masks alone: whoever measures it, all go by the same ones."""
        if self.heads:
            batch = self._subject.placed(self._subject.first)
            self.heads.begin(BatchPositions(batch, self._stacks))
            self.heads.learn(lambda: self._forward(batch))

    def read(self, turn: Turn) -> int:
        """Measure a batch; its measured positions."""
        batch = self._subject.placed(turn.batch)
        self.is_resumable = False
        self.hidden.begin(batch, turn.first)
        if self.heads:
            self.heads.begin(BatchPositions(batch, self._stacks))
        self._forward(batch)
        if self.heads:
            self.heads.check()
        kept = self.hidden.end()
        self.is_resumable = True
        return kept

    @property
    def states(self) -> dict[str, State]:
        """Every state by its name."""
        return {**self.hidden.states(), **(self.heads.states if self.heads else {})}

    def record(self) -> dict[str, Any]:
        """What was read beside the states: numbers and words, as ``take_up`` takes them."""
        return {**self.hidden.record(), "attention": self.heads.record() if self.heads else None}

    def take_up(self, record: Mapping[str, Any], states: Callable[[str], Any]) -> None:
        """Go on from what ``record`` and ``states`` gave, the latter by name; after ``learn``."""
        self.add(record, states)
        self.is_resumable = True

    def add(self, record: Mapping[str, Any], states: Callable[[str], Any]) -> None:
        """Also what others had read and kept, one state at a time."""
        self.is_resumable = False
        self.hidden.add(record, states)
        if self.heads:
            self.heads.add(record["attention"], states)

    def gather(self, group: Any) -> None:
        """Become what all ranks of a process group have read, site by site; on every rank."""
        self.is_resumable = False
        self.hidden.gather(self._subject.device, group)
        if self.heads:
            self.heads.gather(group)

    def _forward(self, batch: ModelBatch) -> None:
        self._subject.network(**batch.arguments)
