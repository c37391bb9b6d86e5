"""``attention`` compiled for four targets: no spills, tensor cores, few instructions a score; and its launches."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from dry_launch import SHARED_BYTES, TENSOR_CORES, Launch, recorded
from test_dry_launch import check_grids

from fastaniso.ops import triton as kernels
from fastaniso.ops.triton.attention_shapes import SCORE_BYTES, Cut, ScoreTile


def attend(
    target: str,
    dtype: torch.dtype,
    length: int,
    *,
    dim: int = 64,
    heads: int = 4,
    window: int | None = None,
    only: str | None = None,
) -> list[Launch]:
    """The launches for two causal sequences with masks, two heads reading the same keys."""

    def empty(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    masks = [empty(2, length, dtype=torch.bool) for _ in range(2)]
    queries, keys = (empty(2, number, length, dim, dtype=dtype) for number in (heads, heads // 2))
    with recorded(target, only) as made:
        counts, histogram, scores, rows, received, visible = kernels.attention(
            queries, keys, *masks, dim**-0.5, True, window, 512, -32.0, 32.0, 64
        )
    shapes = [tuple(t.shape) for t in (counts, histogram, scores, rows, received, visible)]
    assert shapes == [(heads, 8), (heads, 512), (heads, 4), (heads, 5), (heads, 64), (heads, 64)]
    return made


def check(launches: list[Launch], target: str, dtype: torch.dtype) -> None:
    assert {launch.name for launch in launches} <= {"scores_kernel", "score_rows_kernel"}
    for launch in {launch.compiled: launch for launch in launches}.values():
        what = f"{launch.name} {launch.constants}"
        assert launch.spills == 0, f"{what}: {launch.spills} spills at {launch.registers} registers"
        assert launch.instructions > 100, f"{what}: {launch.instructions} instructions"
        static = 0 if target == "gfx942" else launch.static_shared
        assert launch.shared + static <= SHARED_BYTES[target], f"{what}: {launch.shared} + {static} bytes shared"
        if launch.constants.get("SHARED_SLOTS"):
            # Every score is counted by one thread once.
            counted = len(re.findall(r"(?:atom|red)\.shared\S*\.add", launch.compiled.asm["ptx"]))
            threads = 32 * launch.compiled.metadata.num_warps
            assert counted * threads == launch.constants["R"] * launch.constants["C"], what
        if launch.name == "scores_kernel" and dtype != torch.float64:
            assert launch.uses_tensor_cores, f"{what}: no {TENSOR_CORES[target]}"


@pytest.mark.parametrize(
    ("target", "dtype", "length"),
    [
        ("sm_80", torch.float16, 512),
        ("sm_100", torch.float32, 512),
        ("gfx942", torch.bfloat16, 512),
        ("sm_90", torch.float64, 3000),
    ],
    ids=str,
)
def test_every_kernel(target: str, dtype: torch.dtype, length: int) -> None:
    made = attend(target, dtype, length)
    assert [launch.name for launch in made[:2]] == ["scores_kernel", "score_rows_kernel"]
    check(made, target, dtype)


@pytest.mark.parametrize(
    ("target", "dtype"),
    [("sm_90", torch.float32), ("gfx942", torch.float32), ("gfx942", torch.float64)],
    ids=str,
)
def test_other_products(target: str, dtype: torch.dtype) -> None:
    check(attend(target, dtype, 512, dim=80, only="scores_kernel"), target, dtype)


def test_instructions_a_score(record_property: object) -> None:
    """SASS instructions of a thread a score on sm_90, rows of 4096: those of one step of the median, of which there are
    some fifteen, and of everything else. Sixteen products of 128 numbers on an H200's tensor cores take as long as 48.
    """
    launch = attend("sm_90", torch.bfloat16, 4096, only="score_rows_kernel")[0]
    check([launch], "sm_90", torch.bfloat16)
    assert launch.constants["HELD"]
    a_thread = launch.constants["C"] / (32 * launch.compiled.metadata.num_warps)
    step = launch.inner_loop / a_thread
    everything = launch.main_loop / a_thread
    assert callable(record_property)
    record_property("instructions_a_step", step)
    record_property("instructions_a_score", everything - step)
    assert 2 < step <= 5
    assert 20 < everything - step <= 87
    # Three programs a multiprocessor: one counts while another waits for its scores.
    assert 3 * -(-launch.registers // 8) * 8 * 32 * launch.compiled.metadata.num_warps <= 65_536


@pytest.mark.parametrize(("length", "window"), [(60_000, None), (1_000_000, 4096)], ids=["long", "window"])
def test_launches(length: int, window: int | None) -> None:
    """Grids that a GPU accepts, launches short enough to interrupt, and memory that does not grow with the square."""
    made = attend("sm_90", torch.bfloat16, length, heads=2, window=window)
    check_grids(made)
    check(made, "sm_90", torch.bfloat16)
    products = [launch for launch in made if launch.name == "scores_kernel"]
    assert len(made) == 2 * len(products)
    units = [launch.grid[1] * launch.grid[2] * launch.constants["QUERIES"] for launch in products]
    assert sum(units) >= 2 * 2 * length
    for launch, rows in zip(products, units, strict=True):
        # Scores of a launch, and their products: at 100 TFLOP/s a millisecond.
        width = launch.arguments["width"]
        assert rows * width * 64 * 2 < 1e11
        assert width == launch.grid[0] * launch.constants["KEYS"]
        assert width >= min(length, window or length)
        assert width <= (length if window is None else window) + 256
    held = {id(t): t for launch in made for t in launch.arguments.values() if isinstance(t, Tensor)}
    given = ("queries", "keys", "key_mask", "query_mask")
    inputs = {id(launch.arguments.get(name)) for launch in made for name in given}
    assert sum(t.numel() * t.element_size() for at, t in held.items() if at not in inputs) < 2 * SCORE_BYTES
    assert {launch.constants["HELD"] for launch in made if launch.name == "score_rows_kernel"} == {False}


def test_the_same_cut_for_every_gpu() -> None:
    """Which program adds what depends on the shape alone."""
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        cuts = []
        for target in ("cuda", "hopper", "blackwell", "rocm"):
            tile = ScoreTile.of(64, 3000, dtype, target)
            cuts.append((tile, Cut.of((2, 12, 3000, 3000), 3000, 576, tile, max(4, dtype.itemsize), target)))
        assert cuts == cuts[:1] * 4
