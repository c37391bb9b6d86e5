"""The launchers of ``pairs`` and ``neighbors`` at a million rows and more: grids, launches, memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from dry_launch import Launch, recorded, rows
from test_dry_launch import check_grids

from fastaniso.ops import triton as kernels

EVERYTHING = (1024, True, True, [2.0], [0.5], 0, 0)


def tensors(launches: list[Launch]) -> dict[int, Tensor]:
    """Every tensor that launches were given, descriptors' tensors too."""
    given = [argument for launch in launches for argument in launch.arguments.values()]
    given = [getattr(argument, "base", argument) for argument in given]
    return {id(argument): argument for argument in given if isinstance(argument, Tensor)}


def rows_and_others(name: str) -> tuple[Tensor, Tensor | None]:
    return {
        "million": lambda: (rows(1_000_000, 768, torch.bfloat16), None),
        "millions": lambda: (rows(4_000_000, 64, torch.float16), None),
        "wide": lambda: (rows(100_000, 4096, torch.bfloat16), None),
        "float32": lambda: (rows(100_000, 768, torch.float32), None),
        "sliced": lambda: (torch.empty(2000, 201, 768, dtype=torch.bfloat16, device="meta")[:, 1:], None),
        "two_sets": lambda: (rows(3_000, 768, torch.bfloat16), rows(1_000_000, 768, torch.bfloat16)),
    }[name]()


@pytest.mark.parametrize("layout", ["million", "millions", "wide", "float32", "sliced", "two_sets"])
def test_pairs(layout: str) -> None:
    hidden, other = rows_and_others(layout)
    with recorded("sm_90") as made:
        counts, histogram, powers, exponentials, above, values, places = kernels.pairs(
            hidden, None, other, None, *EVERYTHING
        )
    check_grids(made)
    shapes = [t.shape for t in (counts, histogram, powers, exponentials, above, values, places)]
    assert shapes == [(5,), (1024,), (5,), (1,), (1,), (2,), (2, 2)]

    sums = [launch for launch in made if launch.name == "pair_sums_kernel"]
    given = [launch.arguments for launch in sums]
    n, m = (rows.shape[0] * rows.shape[1] for rows in (hidden, hidden if other is None else other))
    whole = sum(a["slots"] * launch.constants["T"] ** 2 for a, launch in zip(given, sums, strict=True) if not a["EDGE"])
    assert whole >= (n * m if other is not None else n * n // 2)
    for launch, arguments in zip(sums, given, strict=True):
        multiplications = arguments["slots"] * launch.constants["T"] ** 2 * arguments["width"]
        # At 100 TFLOP/s a twentieth of a second: Ctrl-C is heard between launches.
        assert multiplications * (6 if launch.constants["PARTS"] == 3 else 1) < 2.5e12
        assert launch.grid[0] <= 1055
    # Beside the input, at any time.
    held = tensors([launch for launch in made if launch.name in ("panel_kernel", "pair_sums_kernel", "extrema_kernel")])
    assert sum(t.numel() * t.element_size() for t in held.values() if t is not hidden and t is not other) < 200e6


def test_programs_empty_their_counts_before_they_overflow() -> None:
    """4·10⁶ rows: 8·10¹² pairs, 7.6·10⁹ a program."""
    flushes = []

    class Counted(kernels.pairs.__globals__["PairSums"]):
        def _flush(self) -> None:
            flushes.append(self._since_flush)
            super()._flush()

    with pytest.MonkeyPatch.context() as patch, recorded("sm_90"):
        patch.setitem(kernels.pairs.__globals__, "PairSums", Counted)
        kernels.pairs(rows(4_000_000, 64, torch.bfloat16), None, None, None, 1024, False, False, [], [], 0, 0)
    assert len(flushes) > 7


@pytest.mark.parametrize("layout", ["million", "two_sets"])
def test_neighbors(layout: str) -> None:
    hidden, other = rows_and_others(layout)
    both = other is not None
    with recorded("sm_90") as made:
        counts, cosines, indices, other_cosines, other_indices = kernels.neighbors(
            hidden, None, other, None, None, None, 10, both, 0, 0
        )
    check_grids(made)
    assert (counts.shape, cosines.shape, indices.shape) == ((5,), (hidden.shape[1], 10), (hidden.shape[1], 10))
    assert other_cosines.shape == other_indices.shape == ((other.shape[1] if other is not None else 0), 10)
    searches = [launch for launch in made if launch.name == "neighbors_kernel"]
    for launch in searches:
        tile, arguments = launch.constants["T"], launch.arguments
        products = launch.grid[0] // launch.constants["SPLITS"] * arguments["tiles"] * tile**2
        assert products * arguments["width"] < 2.5e12


def test_the_same_launches_on_every_nvidia_target() -> None:
    """Which program adds what depends on the shape alone."""
    grids = []
    for target in ("sm_80", "sm_90"):
        with recorded(target, only="pair_sums_kernel") as made:
            kernels.pairs(rows(123_457, 96, torch.bfloat16), None, None, None, *EVERYTHING)
        grids.append([(launch.grid, launch.arguments["slots"], launch.constants["T"]) for launch in made])
    assert grids[0] == grids[1]
