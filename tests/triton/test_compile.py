"""Every kernel compiles for four targets, spills nothing, fits in shared memory, and multiplies on tensor cores."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from dry_launch import SHARED_BYTES, TARGETS, TENSOR_CORES, Launch, recorded, rows

from fastaniso.ops import triton as kernels

ROWS = 100_000


def check(launches: list[Launch], target: str) -> None:
    assert launches
    for launch in launches:
        what = f"{launch.name} {launch.constants}"
        assert launch.spills == 0, f"{what}: {launch.spills} spills at {launch.registers} registers"
        assert launch.shared <= SHARED_BYTES[target], f"{what}: {launch.shared} bytes of shared memory"
        # An fp32 product in six parts once compiled to nothing on sm_100, without a word.
        assert launch.instructions > 100, f"{what}: {launch.instructions} instructions"
        if launch.name == "gram_kernel":
            assert launch.uses_tensor_cores, f"{what}: no {TENSOR_CORES[target]}"


@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel(target: str) -> None:
    hidden = rows(ROWS, 768, torch.bfloat16)
    with recorded(target) as made:
        kernels.gram(hidden, None, True, True, 0)
        kernels.group_moments(hidden, None, torch.zeros(1, ROWS, dtype=torch.int64, device="meta"), 10, 0)
    assert {launch.name for launch in made} == {
        "moments_kernel",
        "norms_kernel",
        "columns_kernel",
        "add_partials_kernel",
        "add_totals_kernel",
        "scales_kernel",
        "gram_kernel",
        "add_tiles_kernel",
        "centre_kernel",
        "segments_kernel",
        "add_segments_kernel",
    }
    check(made, target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_gram(target: str, dtype: torch.dtype) -> None:
    with recorded(target, only="gram_kernel") as made:
        kernels.gram(rows(ROWS, 768, dtype), None, True, True, 0)
    assert len(made) == 2
    check(made, target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_moments_with_a_mask(target: str, dtype: torch.dtype) -> None:
    with recorded(target, only="moments_kernel") as made:
        kernels.moments(rows(ROWS, 768, dtype), torch.ones(1, ROWS, dtype=torch.bool, device="meta"), 0)
    check(made, target)


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_float64(target: str) -> None:
    hidden = rows(ROWS, 768, torch.float64)
    with recorded(target) as made:
        kernels.moments(hidden, None, 0)
        kernels.group_moments(hidden, None, torch.zeros(1, ROWS, dtype=torch.int64, device="meta"), 10, 0)
    check(made, target)


def test_gram_of_rows_at_two_strides_and_an_odd_width() -> None:
    with recorded("sm_90", only="gram_kernel") as made:
        kernels.gram(
            torch.empty(300, 301, 1003, dtype=torch.bfloat16, device="meta")[:, 1:, :1001], None, True, True, 0
        )
    check(made, "sm_90")


@pytest.mark.parametrize("dim", [1, 7, 64, 384, 1000, 1024, 1536, 4096, 8192])
def test_moments_of_any_width_spill_nothing(dim: int) -> None:
    with recorded("sm_90", only="moments_kernel") as made:
        kernels.moments(rows(ROWS, dim, torch.bfloat16), None, 0)
    check(made, "sm_90")


def test_rows_beyond_8192_go_to_the_float64_kernels() -> None:
    with recorded("sm_90") as made:
        kernels.moments(rows(1000, 8193, torch.bfloat16), None, 0)
    assert "moments_kernel" not in [launch.name for launch in made]


@pytest.mark.parametrize(
    ("dtype", "dim", "most"),
    # Seven operations an element are the four sums and the norm; one unpacks it; the rest is a row's overhead.
    [
        (torch.bfloat16, 768, 11.5),
        (torch.bfloat16, 1024, 10.5),
        (torch.float32, 768, 10.3),
        (torch.float16, 4096, 11.3),
    ],
    ids=str,
)
def test_moments_instructions_an_element(dtype: torch.dtype, dim: int, most: float, record_property: object) -> None:
    """SASS instructions of a thread an element on sm_90: an H200 has about 13.8 to spend on bfloat16 at 4.3 TB/s."""
    with recorded("sm_90", only="moments_kernel") as made:
        kernels.moments(rows(ROWS, dim, dtype), None, 0)
    launch = made[0]
    tile = launch.constants
    a_thread = (tile["K0"] + tile["K1"]) * tile["C"] * tile["R"] / (32 * launch.compiled.metadata.num_warps)
    instructions = launch.main_loop / a_thread
    assert callable(record_property)
    record_property("instructions_an_element", instructions)
    assert 7 < instructions <= most


def test_twelve_programs_of_moments_fit_a_multiprocessor() -> None:
    """At d = 768: registers for twelve warps of a row each, so that loads hide behind other rows' arithmetic."""
    with recorded("sm_90", only="moments_kernel") as made:
        kernels.moments(rows(ROWS, 768, torch.bfloat16), None, 0)
    launch = made[0]
    assert launch.compiled.metadata.num_warps == 1
    assert 12 * -(-launch.registers // 8) * 8 * 32 <= 65_536
    assert 12 * launch.shared <= SHARED_BYTES["sm_90"]
