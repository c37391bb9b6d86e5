"""The attention op: every instruction set × dtype × named case against float64 maps of the same rounded inputs."""

from __future__ import annotations

from itertools import pairwise

import attention_bounds
import pytest
import torch
from attention_cases import CASES, make
from cases import DTYPES
from hypothesis import given, settings
from hypothesis import strategies as st

from fastaniso.heads import as_heads
from fastaniso.ops import dispatch
from fastaniso.state import Attention, StateMismatchError


def states(name: str, dtype: str, **options: object) -> tuple[Attention, Attention]:
    case = make(name, dtype)
    return tuple(  # type: ignore[return-value]
        dispatch.attention(case.heads, **case.how, **options, backend=backend)  # type: ignore[arg-type]
        for backend in ("cpu", "reference")
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(isa: str, dtype: str, case: str) -> None:
    ours, right = states(case, dtype, bins=100, score_range=(-6.0, 5.0), positions=5)
    attention_bounds.check(ours, right, make(case, dtype).heads)
