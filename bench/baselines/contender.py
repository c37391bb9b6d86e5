"""A way to a number, and what it needs to run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

FLOATS = ("float32", "bfloat16", "float16")
NUMPY_FLOATS = ("float32",)  # NumPy has no bfloat16, and no float16 product worth timing


@dataclass(frozen=True)
class Contender:
    """A way to the number: ``package`` is what it runs on and must be installed.

    ``most_rows`` are those on which a quadratic one is still timed beside the others, None for any number.
    """

    name: str
    call: Callable[[Tensor], Any]
    package: str
    dtypes: tuple[str, ...] = FLOATS
    full_matrix: bool = False
    normalised: bool = True
    most_rows: int | None = None

    @property
    def backend(self) -> str:
        """What a row says that it ran on."""
        return "cpu" if self.package == "fastaniso" else self.package

    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        if importlib.util.find_spec(self.package) is None:
            return f"{self.name}: the package {self.package} is not installed"
        return None
