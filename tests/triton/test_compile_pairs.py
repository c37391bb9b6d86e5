"""``pairs`` and ``neighbors`` compiled for four targets: no spills, tensor cores, two programs a multiprocessor."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from dry_launch import SHARED_BYTES, TARGETS, TENSOR_CORES, Launch, recorded, rows

from fastaniso.ops import triton as kernels

ROWS = 1000
EVERYTHING: dict[str, Any] = {
    "bins": 1024,
    "moments": True,
    "extrema": True,
    "uniformity_t": [2.0],
    "thresholds": [],
}
NOTHING: dict[str, Any] = {"bins": 0, "moments": False, "extrema": False, "uniformity_t": [], "thresholds": []}
MULTIPLYING = ("pair_sums_kernel", "extrema_kernel", "neighbors_kernel")


def pairs(target: str, dtype: torch.dtype, *, two: bool = False, only: str | None = None, **asked: Any) -> list[Launch]:
    """The launches for 1000 rows, or for 1000 rows and as many others if ``two``."""
    hidden = rows(ROWS, 768, dtype)
    with recorded(target, only) as made:
        kernels.pairs(hidden, None, hidden if two else None, None, **asked, start=0, other_start=0)
    return made


def check(launches: list[Launch], target: str) -> None:
    assert launches
    for launch in launches:
        what = f"{launch.name} {launch.constants}"
        assert launch.spills == 0, f"{what}: {launch.spills} spills at {launch.registers} registers"
        assert launch.instructions > 50, f"{what}: {launch.instructions} instructions"
        static = 0 if target == "gfx942" else launch.static_shared
        assert launch.shared + static <= SHARED_BYTES[target], f"{what}: {launch.shared} + {static} bytes shared"
        # Triton asks the driver for more than 48 KiB only if its own part is more.
        assert launch.shared > 48 * 1024 or launch.shared + static <= 49 * 1024, f"{what}: {launch.shared} + {static}"
        if launch.name in MULTIPLYING and launch.constants["PARTS"] > 0:
            assert launch.uses_tensor_cores, f"{what}: no {TENSOR_CORES[target]}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel(target: str, dtype: torch.dtype) -> None:
    made = pairs(target, dtype, **EVERYTHING)
    with recorded(target, only="neighbors_kernel") as searching:
        kernels.neighbors(rows(ROWS, 768, dtype), None, None, None, None, None, 10, False, 0, 0)
    names = [launch.name for launch in made]
    assert names.count("panel_kernel") == 1
    assert names.count("pair_sums_kernel") == names.count("extrema_kernel") == 2
    check([launch for launch in made if launch.name in ("panel_kernel", *MULTIPLYING)] + searching, target)


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_float64(target: str) -> None:
    made = pairs(target, torch.float64, **EVERYTHING)
    check([launch for launch in made if launch.name in ("panel_kernel", *MULTIPLYING)], target)


@pytest.mark.parametrize("target", TARGETS)
def test_fast_products_of_float32_rows(target: str) -> None:
    made = pairs(target, torch.float32, **EVERYTHING, precision="fast")
    check([launch for launch in made if launch.name in ("panel_kernel", *MULTIPLYING)], target)
    assert {launch.constants["PARTS"] for launch in made if launch.name in ("panel_kernel", *MULTIPLYING)} == {1}


@pytest.mark.parametrize("target", TARGETS)
def test_most_bins_and_several_exponents_and_thresholds(target: str) -> None:
    asked = {**EVERYTHING, "bins": 8192, "uniformity_t": [2.0, 1.0, 0.5], "thresholds": [0.1, 0.3, 0.5, 0.9]}
    check(pairs(target, torch.float16, two=True, only="pair_sums_kernel", **asked), target)


@pytest.mark.parametrize("k", [20, 50, 128])
def test_neighbors(k: int) -> None:
    two = (rows(ROWS, 768, torch.bfloat16), None) * 2
    with recorded("sm_90", only="neighbors_kernel") as made:
        kernels.neighbors(*two, None, None, k, True, 0, 0)
    assert len(made) == 2
    check(made, "sm_90")


@pytest.mark.parametrize("bins", [64, 2048, 8192])
def test_two_programs_fit_a_multiprocessor(bins: int) -> None:
    """With every statistic and a threshold: one program multiplies while the other sums up."""
    asked = {**EVERYTHING, "bins": bins, "thresholds": [0.5]}
    launch = pairs("sm_90", torch.bfloat16, two=True, only="pair_sums_kernel", **asked)[0]
    check([launch], "sm_90")
    assert 2 * -(-launch.registers // 8) * 8 * 32 * launch.compiled.metadata.num_warps <= 65_536
    assert 2 * (launch.shared + launch.static_shared) <= 228 * 1024


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({}, 41.5),
        ({"bins": 1024}, 26.5),
        ({"moments": True}, 28.5),
        ({"extrema": True}, 23.2),
        ({"uniformity_t": [2.0]}, 25.5),
        ({"thresholds": [0.5]}, 24.2),
    ],
    ids=lambda value: "-".join(value) or "everything" if isinstance(value, dict) else str(value),
)
def test_instructions_a_pair(asked: dict[str, Any], most: float, record_property: object) -> None:
    """SASS instructions of a thread a pair on sm_90, d = 768: an H200 has 48 to spend while its tensor cores multiply.

    Those of the product's twelve steps are 14.
    """
    asked = {**NOTHING, **asked} if asked else EVERYTHING
    launch = pairs("sm_90", torch.bfloat16, two=True, only="pair_sums_kernel", **asked)[0]
    threads = 32 * launch.compiled.metadata.num_warps
    assert launch.constants["T"] == 128
    more_steps = 768 // launch.constants["K"] - 1
    instructions = (launch.main_loop + more_steps * launch.product_loop) * threads / 128**2
    assert callable(record_property)
    record_property("instructions_a_pair", instructions)
    assert 15 < instructions <= most


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
def test_the_shared_histogram(target: str) -> None:
    """Cleared, barrier, every cosine counted by one thread once, barrier, read."""
    events = {
        "clear": r"st\.shared\S*\s+\[[^]]*\],\s*0;",
        "barrier": r"bar(?:rier)?\.(?:cta\.)?sync",
        "number": r"(?:atom|red)\.shared\S*\.add",
        "read": r"ld\.shared",
    }
    for launch in pairs(target, torch.bfloat16, only="pair_sums_kernel", **{**NOTHING, "bins": 100}):
        ptx = launch.compiled.asm["ptx"]
        assert re.search(r"\.shared \.align 1024 \.b8 slots\[1024\]", ptx)
        found = re.finditer("|".join(f"(?P<{name}>{pattern})" for name, pattern in events.items()), ptx)
        order = "".join(str(event.lastgroup)[0] for event in found)
        assert re.fullmatch("[br]*c+b[br]*n+b[br]*rb*", order), order
        threads = 32 * launch.compiled.metadata.num_warps
        assert order.count("n") * threads == launch.constants["T"] ** 2
