"""``pairs`` and ``neighbors`` line by line in NumPy: 70 rows are several of the interpreter's small tiles."""

from __future__ import annotations

from pathlib import Path
from sys import modules

import numpy as np
import pair_checks
import pytest
import torch
from cases import DTYPES, make
from checks import two_axes
from torch import Tensor

from fastaniso.ops import triton as kernels
from fastaniso.ops.triton import shapes
from fastaniso.rows import as_rows

HALF_CASES = ("odd_d", "squares_overflow_half", "masked", "duplicates", "n_1")
CASES = (
    *HALF_CASES,
    "collapsed",
    "nan_row",
    "tiny_norms",
    "huge_norms",
    "mixed_norms",
    "antipodal",
    "all_invalid",
    "n_2",
)
RUNS = [(case, dtype) for dtype in DTYPES for case in (CASES if dtype in ("f32", "bf16") else HALF_CASES)]
PAIRS, ROW_SETS = modules["fastaniso.ops.triton.pairs"], modules["fastaniso.ops.triton.row_sets"]


def as_block(case: str, dtype: str, rows: int = 70) -> tuple[Tensor, Tensor | None]:
    values, mask = make(case, dtype)
    return values[None, :rows], None if mask is None else mask[None, :rows]


def some(n: int, dim: int, dtype: str, seed: int = 3) -> Tensor:
    rows = torch.randn(1, n, dim, generator=torch.Generator().manual_seed(seed)) + 0.2
    rows[0, n // 2] = 0
    return rows.to(DTYPES[dtype])


@pytest.fixture(autouse=True)
def _small_supertiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the slots of large ones would be passed over, one by one."""
    monkeypatch.setattr(shapes, "SUPERTILE_SIDE", 2)


@pytest.fixture
def _small_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an input that is long or wide: 128 rows a panel."""
    monkeypatch.setattr(ROW_SETS, "panel_rows", lambda rows, dim, dtype: 128)


@pytest.mark.parametrize(("case", "dtype"), RUNS)
def test_pairs(case: str, dtype: str) -> None:
    pair_checks.check_pairs(*as_block(case, dtype), "cpu")


@pytest.mark.parametrize(("case", "dtype"), RUNS)
def test_neighbors(case: str, dtype: str) -> None:
    pair_checks.check_neighbors(*as_block(case, dtype), 5, "cpu")


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_sets(dtype: str) -> None:
    hidden, mask = as_block("masked", dtype)
    other = some(39, 36, dtype)
    pair_checks.check_pairs(hidden, mask, "cpu", other=other)
    pair_checks.check_neighbors(hidden, mask, 40, "cpu", other=other, both=True)
    nothing = other[:, :0]
    pair_checks.check_pairs(hidden, mask, "cpu", other=nothing)
    pair_checks.check_neighbors(hidden, mask, 2, "cpu", other=nothing, both=True)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.usefixtures("_small_panels")
def test_neighbors_no_worse_than_asked(dtype: str) -> None:
    hidden, mask = as_block("masked", dtype)
    pair_checks.check_least(hidden, mask, some(140, hidden.shape[2], dtype), "cpu")


@pytest.mark.parametrize("dtype", ["bf16", "f64"])
@pytest.mark.usefixtures("_small_panels")
def test_several_panels(dtype: str) -> None:
    hidden = some(190, 5, dtype)
    mask = torch.ones(1, 190, dtype=torch.bool)
    mask[0, 20:50] = False
    pair_checks.check_pairs(hidden, mask, "cpu")
    pair_checks.check_neighbors(hidden, mask, 7, "cpu")
    pair_checks.check_pairs(hidden[:, :140], None, "cpu", other=some(30, 5, dtype, 4))


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_a_width_of_several_steps(dtype: str) -> None:
    hidden = some(40, 200, dtype)
    pair_checks.check_pairs(hidden, None, "cpu")
    pair_checks.check_neighbors(hidden, None, 1, "cpu")


def test_rows_at_two_strides() -> None:
    hidden, mask = two_axes(*(part[:60] for part in make("masked", "bf16")))
    pair_checks.check_pairs(hidden, mask, "cpu")
    pair_checks.check_neighbors(hidden, mask, 3, "cpu")


@pytest.mark.parametrize("dtype", ["bf16", "f32", "f64"])
def test_exact_cosines(dtype: str) -> None:
    pair_checks.check_exact(80, DTYPES[dtype], "cpu")


def test_parts() -> None:
    pair_checks.check_parts(some(50, 9, "bf16"), None, "cpu")


def test_same_input_same_bits() -> None:
    pair_checks.check_same_bits(some(40, 7, "f32"), None, "cpu")


def test_many_thresholds_and_exponents() -> None:
    pair_checks.check_pairs(
        some(50, 9, "bf16"), None, "cpu", uniformity_t=[0.1, 2, 8], thresholds=[-2, -0.3, 0, 0.7, 1]
    )


def test_counts_are_moved_to_int64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PAIRS, "MAX_PAIRS", 1000)
    pair_checks.check_pairs(some(70, 9, "bf16"), None, "cpu")


def test_supertiles_of_their_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SUPERTILE_SIDE", 16)
    pair_checks.check_pairs(some(50, 9, "bf16"), None, "cpu", other=some(40, 9, "bf16", 4))


def test_few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has several tiles, and carries its sums from one to the next."""
    monkeypatch.setattr(shapes, "PAIR_PROGRAMS", 3)
    pair_checks.check_pairs(some(110, 9, "bf16"), None, "cpu")


def test_rows_through_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Hopper and Blackwell read them."""
    tile = shapes.PairTile.of
    monkeypatch.setattr(shapes.PairTile, "of", lambda *args, **more: _described(tile(*args, **more)))
    for dtype in ("bf16", "f32"):
        pair_checks.check_pairs(some(50, 70, dtype), None, "cpu")
        pair_checks.check_neighbors(some(50, 70, dtype), None, 3, "cpu")


def _described(tile: shapes.PairTile) -> shapes.PairTile:
    return shapes.PairTile(tile.side, tile.K, tile.stages, tile.warps, None, described=True)


def test_offsets_beyond_int32(tmp_path: Path) -> None:
    """Seven rows, 400 million numbers apart, of a sparse file: the last one starts beyond 2³¹."""
    stored = np.memmap(tmp_path / "sparse", dtype=np.float16, mode="w+", shape=(7, 409_600_000))
    stored[:, :40] = np.random.default_rng(6).standard_normal((7, 40))
    values = as_rows(stored[:, :40]).values
    pair_checks.check_pairs(values, None, "cpu")
    pair_checks.check_neighbors(values, None, 3, "cpu")


def test_through_the_dispatcher() -> None:
    """The registered ops reach these kernels when asked for by name."""
    hidden = some(30, 7, "f32")
    through = torch.ops.fastaniso.pairs(hidden, None, None, None, 64, True, True, [2.0], [0.5], 0, 0, "exact", "triton")
    direct = kernels.pairs(hidden, None, None, None, 64, True, True, [2.0], [0.5], 0, 0)
    searched = (hidden, None, hidden, None, None, None, 3, True, 0, 0)
    through += torch.ops.fastaniso.neighbors(*searched, "exact", "triton")
    direct += kernels.neighbors(*searched)
    for one, two in zip(through, direct, strict=True):
        assert torch.equal(one, two)


def test_fast_products_of_float32_rows() -> None:
    pair_checks.check_fast(some(70, 61, "f32"), "cpu")
    pair_checks.check_pairs(*as_block("mixed_norms", "f32"), "cpu", precision="fast")


def test_other_rows_are_never_rounded() -> None:
    for dtype in ("f16", "bf16", "f64"):
        rows = some(50, 33, dtype)
        asked = (rows, None, None, None, 64, True, True, [], [], 0, 0)
        for exact, fast in zip(kernels.pairs(*asked), kernels.pairs(*asked, "fast"), strict=True):
            assert torch.equal(exact, fast)
