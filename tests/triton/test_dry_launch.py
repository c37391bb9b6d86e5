"""The launchers' own code on inputs of any size: grids that a GPU accepts, and launches short enough to interrupt."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from dry_launch import Launch, recorded, rows

from fastaniso.ops import triton as kernels

MILLIONS = 4_000_000


def check_grids(launches: list[Launch]) -> None:
    assert launches
    for launch in launches:
        x, *others = launch.grid
        assert 0 < x < 2**31, f"{launch.name}: {launch.grid}"
        assert all(0 < size < 65_536 for size in others), f"{launch.name}: {launch.grid}"


def some_rows(name: str) -> Tensor:
    return {
        "contiguous": lambda: rows(MILLIONS, 768, torch.bfloat16),
        "sliced": lambda: torch.empty(2000, 2001, 768, dtype=torch.bfloat16, device="meta")[:, 1:],
        "wide": lambda: rows(600_000, 4096, torch.bfloat16),
        "long_inner_axis": lambda: torch.empty(3, 5_000_000, 40, dtype=torch.float16, device="meta")[:, 7:, :33],
        "many_short_sequences": lambda: torch.empty(MILLIONS, 3, 16, device="meta")[:, :2],
    }[name]()


@pytest.mark.parametrize("layout", ["contiguous", "sliced", "wide", "long_inner_axis", "many_short_sequences"])
def test_grids(layout: str) -> None:
    hidden = some_rows(layout)
    assert hidden.numel() > 10**8
    groups = torch.zeros(hidden.shape[:2], dtype=torch.int64, device="meta")
    with recorded("sm_90") as made:
        counts, totals, sums, scatter, unit_scatter = kernels.gram(hidden, None, True, True, 0)
        per_group, unit_sum, unit_squared, dropped = kernels.group_moments(hidden, None, groups, 100_000, 0)
    check_grids(made)
    dim = hidden.shape[2]
    assert (counts.shape, totals.shape, sums.shape) == ((5,), (6,), (4, dim))
    assert scatter.shape == unit_scatter.shape == (dim, dim)
    assert (per_group.shape, unit_sum.shape, unit_squared.shape) == ((100_000,), (100_000, dim), (100_000,))
    assert dropped.shape == (5,)


def test_a_launch_reads_a_bounded_number_of_bytes() -> None:
    """At most 17 GB, a few milliseconds: Ctrl-C is heard between launches."""
    with recorded("sm_90", only="moments_kernel") as made:
        kernels.moments(rows(60_000_000, 768, torch.float32), None, 0)
    assert len(made) >= 15
    assert all(launch.grid[0] <= 4096 for launch in made)


def test_a_gram_program_sums_a_bounded_number_of_rows() -> None:
    with recorded("sm_90", only="gram_kernel") as made:
        kernels.gram(rows(MILLIONS, 1024, torch.bfloat16), None, True, False, 0)
    grids = [launch.grid for launch in made]
    assert sum(splits * 32_768 for _, splits in grids) >= 2 * MILLIONS  # two variants, one of which returns at once
    assert all(tiles * splits * 128 * 128 <= 2**24 for tiles, splits in grids)


def test_the_split_depends_on_the_shape_alone() -> None:
    """The same grid on every NVIDIA target, whatever its number of multiprocessors."""
    grids = []
    for target in ("sm_80", "sm_90"):
        with recorded(target, only="moments_kernel") as made:
            kernels.moments(rows(123_457, 96, torch.float32), None, 0)
        grids.append([launch.grid for launch in made])
    assert grids[0] == grids[1]
