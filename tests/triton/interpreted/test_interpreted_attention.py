"""``attention`` line by line in NumPy: forty keys are several of the interpreter's small tiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from sys import modules

import attention_checks
import numpy as np
import pytest
import torch
from attention_checks import Asked, check, make
from cases import DTYPES

from fastaniso.ops import triton as kernels
from fastaniso.ops.triton import attention_shapes

ATTENTION = modules["fastaniso.ops.triton.attention"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_grouped_queries_masks_and_causal(dtype: str) -> None:
    """More keys than queries, sequences without a key or a query, rows whose keys are all masked."""
    check(make(2, 2, 1, 18, 40, 20, DTYPES[dtype], causal=True, masked=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"causal": True, "window": 7, "scale": -0.2},
        {"window": 5},
        {"causal": True, "window": 1},
        {"bins": 0, "positions": 0},
    ],
    ids=str,
)
def test_what_a_query_sees(options: dict[str, object]) -> None:
    check(make(1, 1, 1, 35, 100, 8, torch.bfloat16, **options))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1, 1), (1, 2, 2, 3, 0, 4), (1, 2, 1, 0, 3, 4), (0, 1, 1, 2, 2, 4)])
def test_few(shape: tuple[int, int, int, int, int, int]) -> None:
    check(make(*shape, torch.float32))


@pytest.mark.parametrize(("size", "dtype"), [(100.0, "f16"), (1e12, "bf16"), (1e25, "f32"), (1e-18, "f32")])
def test_scores_of_any_size(size: float, dtype: str) -> None:
    """Squares of 10²⁵ and 10⁻¹⁸ would overflow and vanish in float32."""
    check(make(1, 1, 1, 20, 40, 8, DTYPES[dtype], size=size, causal=True))


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_not_finite(dtype: str) -> None:
    attention_checks.check_not_finite(DTYPES[dtype])


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_whole_numbers(dtype: str) -> None:
    attention_checks.check_exact(DTYPES[dtype])


def test_vectors_of_one_fused_projection() -> None:
    attention_checks.check_fused(torch.float16)


def test_several_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an input that is long: one head and two units at a time, three programs, and counts moved to int64."""
    monkeypatch.setattr(attention_shapes, "SCORE_BYTES", 16 * 96 * 4 * 2)
    monkeypatch.setattr(attention_shapes, "ROW_WARPS", 4)
    monkeypatch.setattr(ATTENTION, "MAX_SCORES", 1000)
    check(make(2, 3, 3, 40, 90, 4, torch.bfloat16, masked=True, positions=70))


def test_offsets_beyond_int32(tmp_path: Path) -> None:
    """Seven vectors, 400 million numbers apart, of a sparse file: the last one starts beyond 2³¹."""
    stored = np.memmap(tmp_path / "sparse", dtype=np.float16, mode="w+", shape=(7, 409_600_000))
    stored[:, :16] = np.random.default_rng(6).standard_normal((7, 16))
    vectors = torch.from_numpy(stored[:, :16])[None, None]
    check(Asked(vectors, vectors))
    check(Asked(vectors.transpose(0, 2), vectors.transpose(0, 2)))


def test_through_the_dispatcher() -> None:
    """The registered op reaches these kernels when asked for by name."""
    arguments = make(1, 2, 1, 9, 12, 4, torch.float32, masked=True).arguments()
    through = torch.ops.fastaniso.attention(*arguments, "triton")
    for one, two in zip(through, kernels.attention(*arguments), strict=True):
        assert torch.equal(one, two)


def test_the_checker_sees_a_wrong_median(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.attention

    def wrong(*arguments: object) -> list[torch.Tensor]:
        made = [t.clone() for t in right(*arguments)]
        made[3][0, 3] *= 1 + 1e-4
        return made

    monkeypatch.setattr(kernels, "attention", wrong)
    asked = make(1, 1, 1, 9, 12, 4, torch.float32)
    with pytest.raises(AssertionError, match="rows of head 0"):
        check(asked)
    monkeypatch.setattr(kernels, "attention", right)
    check(replace(asked, causal=True))
