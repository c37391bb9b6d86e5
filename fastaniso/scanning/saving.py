"""Results in a folder: states, one JSON, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fastaniso.state import State, save_state

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def state_path(folder: Path, name: str) -> Path:
    """Where a folder of results has a state."""
    return folder / "states" / f"{name}.safetensors"


def save_json(folder: Path, name: str, text: str, states: Mapping[str, State]) -> list[Path]:
    """Write the states and then the JSON: where there is one, everything it speaks of is there."""
    (folder / "states").mkdir(parents=True, exist_ok=True)
    written = []
    for site, state in states.items():
        written.append(state_path(folder, site))
        save_state(state, written[-1])
    (folder / name).write_text(text + "\n", encoding="utf-8")
    return [*written, folder / name]


def save_pictures(folder: Path, pictures: Mapping[str, Callable[[], Figure]]) -> list[Path]:
    """Draw and write ``NAME.png`` for each, where matplotlib is installed."""
    if find_spec("matplotlib") is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in pictures.items():
        written.append(folder / f"{name}.png")
        draw().savefig(written[-1], dpi=150)
    return written
