"""What one rank of a scan has kept: a record, and the states that it speaks of."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fastaniso.state import CorruptStateError, State, load_state, save_state


class Part:
    """A folder in which each time is kept in a folder of its own.

    A short file, replaced by atomic rename, says which one counts: who is killed while writing goes on from the time
    before.
    """

    def __init__(self, folder: Path) -> None:
        """The folder need not be there."""
        self._folder = folder

    def record(self) -> dict[str, Any] | None:
        """What was last written beside the states; None if nothing was. ``CorruptStateError`` if it is damaged."""
        try:
            content: dict[str, Any] = json.loads(self._record.read_text(encoding="utf-8"))
            _ = int(content["batches"]), str(content["states"]), content["within"].items()
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptStateError(f"resume: {self._record} is damaged ({error!r}); {self._remedy}") from error
        return content

    def states(self, record: Mapping[str, Any], device: torch.device) -> Callable[[str], State]:
        """The states that ``record`` speaks of, by name, read when they are asked for."""
        place = self._folder / Path(record["states"]).name

        def state(name: str) -> State:
            try:
                return load_state(place / f"{name}.safetensors").to(device)
            except FileNotFoundError as error:
                raise CorruptStateError(f"resume: there is no state {name!r} in {place}; {self._remedy}") from error

        return state

    def write(self, states: Mapping[str, State], record: Mapping[str, Any]) -> None:
        """Keep this, and then drop what was kept before."""
        place = f"after-{record['batches']}"
        (self._folder / place).mkdir(parents=True, exist_ok=True)
        for name, state in states.items():
            save_state(state, self._folder / place / f"{name}.safetensors")
        temporary = self._folder / f".record.{os.getpid()}"
        temporary.write_text(json.dumps({"states": place, **record}, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, self._record)
        for old in self._folder.glob("after-*"):
            if old.name != place:
                shutil.rmtree(old, ignore_errors=True)

    @property
    def _record(self) -> Path:
        return self._folder / "record.json"

    @property
    def _remedy(self) -> str:
        return f"delete {self._folder.parents[1]} to start anew"
