"""Hard inputs by name: each (rows, mask) in a given dtype, small enough for float64 to write everything out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Case = Callable[[torch.Generator], tuple[Tensor, Tensor | None]]


def _normal(generator: torch.Generator, n: int, dim: int) -> Tensor:
    return torch.randn(n, dim, generator=generator, dtype=torch.float64)


def isotropic(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return _normal(g, 1500, 64), None


def collapsed(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return 10 * torch.ones(700, 48).double() + 1e-2 * _normal(g, 700, 48), None


def drifted(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return _normal(g, 1100, 40) + 1000 * torch.linspace(-1, 1, 40).double(), None


def rank_one(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return _normal(g, 200, 1) * _normal(g, 1, 33), None


def one_huge_dimension(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    rows = _normal(g, 300, 50)
    rows[:, 7] = 3000 + 10 * rows[:, 7]
    return rows, None


def zero_row(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    rows = _normal(g, 65, 17)
    rows[3] = rows[64] = 0
    return rows, None


def nan_row(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    rows = _normal(g, 130, 19)
    rows[5, 0] = torch.nan
    rows[6, 18] = torch.inf
    rows[129, 9] = -torch.inf
    return rows, None


def all_invalid(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    rows = torch.zeros(5, 8).double()
    rows[2] = torch.nan
    return rows, None


def tiny_norms(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return 1e-30 * _normal(g, 150, 24), None


def subnormal(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return 1e-42 * (1 + _normal(g, 40, 24).abs()), None


def huge_norms(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return 1e30 * _normal(g, 150, 24), None


def mixed_norms(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return _normal(g, 300, 24) * 10.0 ** torch.randint(-30, 31, (300, 1), generator=g), None


def squares_overflow_half(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return 20000 * (_normal(g, 90, 32).clamp(-3, 3)), None


def n_0(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return _normal(g, 0, 12), None


def n_1(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return _normal(g, 1, 12), None


def n_2(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return _normal(g, 2, 12), None


def d_1(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return _normal(g, 77, 1), None


def odd_d(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return _normal(g, 101, 97) + 0.5, None


def wide(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return _normal(g, 70, 1027), None


def duplicates(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return _normal(g, 10, 21).repeat(30, 1), None


def antipodal(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    half = _normal(g, 100, 30)
    return torch.cat((half, -half)), None


def masked(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    rows = _normal(g, 2500, 36) + 0.3
    rows[7] = torch.nan  # a masked row may hold anything
    mask = torch.rand(2500, generator=g) > 0.4
    mask[7] = False
    return rows, mask


def all_masked(g: torch.Generator) -> tuple[Tensor, Tensor | None]:
    return _normal(g, 40, 9), torch.zeros(40, dtype=torch.bool)


CASES: dict[str, Case] = {
    case.__name__: case
    for case in (
        isotropic,
        collapsed,
        drifted,
        rank_one,
        one_huge_dimension,
        zero_row,
        nan_row,
        all_invalid,
        tiny_norms,
        subnormal,
        huge_norms,
        mixed_norms,
        squares_overflow_half,
        n_0,
        n_1,
        n_2,
        d_1,
        odd_d,
        wide,
        duplicates,
        antipodal,
        masked,
        all_masked,
    )
}
DTYPES: dict[str, torch.dtype] = {
    "f32": torch.float32,
    "f64": torch.float64,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
}


def make(case: str, dtype: str) -> tuple[Tensor, Tensor | None]:
    """The rows of a case, rounded to the dtype: what rounds to zero or to infinity is part of the case."""
    rows, mask = CASES[case](torch.Generator().manual_seed(len(case)))
    return rows.to(DTYPES[dtype]), mask
