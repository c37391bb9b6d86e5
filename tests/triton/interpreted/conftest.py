"""These run in a process of their own with TRITON_INTERPRET=1, which test_interpreter.py starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

if os.environ.get("TRITON_INTERPRET") == "1":
    here = Path(__file__).parents[1]
    sys.path[:0] = [str(here), str(here.parent)]
    import interpreter_patch

    interpreter_patch.apply()
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def _numpy_like_a_gpu() -> Iterator[None]:
    """A GPU says nothing when a square overflows or 0 is divided by 0; the kernels select other numbers then."""
    with np.errstate(all="ignore"):
        yield
