"""Hard queries and keys by name, small enough for float64 to write every map out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from cases import DTYPES
from torch import Tensor

from fastaniso.heads import Heads, as_heads


@dataclass(frozen=True)
class Case:
    queries: Tensor
    keys: Tensor
    query_mask: Tensor | None = None
    key_mask: Tensor | None = None
    scale: float | None = None
    causal: bool = False
    window: int | None = None

    @property
    def heads(self) -> Heads:
        return as_heads(self.queries, self.keys, self.query_mask, self.key_mask)

    @property
    def how(self) -> dict[str, object]:
        return {"scale": self.scale, "causal": self.causal, "window": self.window}


Make = Callable[[torch.Generator], Case]


def _normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def _case(g: torch.Generator, b: int, h: int, t: int, d: int, *, groups: int = 0, keys: int = 0, **how: object) -> Case:
    return Case(_normal(g, b, h, t, d), _normal(g, b, groups or h, keys or t, d), **how)  # type: ignore[arg-type]


def every_key(g: torch.Generator) -> Case:
    return _case(g, 2, 3, 50, 16)


def causal(g: torch.Generator) -> Case:
    return _case(g, 2, 2, 130, 24, causal=True)


def causal_after_a_cache(g: torch.Generator) -> Case:
    return _case(g, 1, 2, 20, 8, keys=75, causal=True)


def sliding_window(g: torch.Generator) -> Case:
    return _case(g, 1, 2, 150, 12, causal=True, window=7)


def local_window(g: torch.Generator) -> Case:
    return _case(g, 1, 2, 90, 12, window=9)


def window_of_one(g: torch.Generator) -> Case:
    return _case(g, 1, 1, 30, 8, causal=True, window=1)


def grouped_queries(g: torch.Generator) -> Case:
    return _case(g, 2, 6, 40, 16, groups=2, causal=True)


def fewer_keys_than_queries(g: torch.Generator) -> Case:
    return _case(g, 1, 2, 61, 16, keys=20)


def masked(g: torch.Generator) -> Case:
    case = _case(g, 3, 2, 70, 16)
    keep = torch.rand(2, 3, 70, generator=g) > 0.3
    case.queries[0, 0, 5] = torch.nan  # what is masked may hold anything
    case.keys[1, :, 7] = torch.inf
    keep[0, 0, 5] = keep[1, 1, 7] = False
    return replace(case, query_mask=keep[0], key_mask=keep[1])


def padded_left(g: torch.Generator) -> Case:
    real = torch.arange(60) >= torch.tensor([[0], [13], [59], [60]])
    return _case(g, 4, 2, 60, 16, query_mask=real, key_mask=real, causal=True)


def no_key_to_see(g: torch.Generator) -> Case:
    mask = torch.arange(40) >= torch.tensor([[9], [40]])
    return _case(g, 2, 2, 40, 8, key_mask=mask, causal=True, window=20)


def one_key(g: torch.Generator) -> Case:
    return _case(g, 2, 2, 9, 8, keys=1)


def one_query(g: torch.Generator) -> Case:
    return _case(g, 1, 2, 1, 64, keys=300, causal=True)


def huge_scores(g: torch.Generator) -> Case:
    case = _case(g, 1, 2, 60, 16, scale=1.0)
    return replace(case, queries=50 * case.queries, keys=50 * case.keys)  # to ±1e4, far beyond what exp can take


def equal_scores(g: torch.Generator) -> Case:
    case = _case(g, 1, 2, 67, 16, causal=True)
    return replace(case, queries=torch.zeros_like(case.queries))


def one_hot(g: torch.Generator) -> Case:
    eye = 40 * torch.eye(48, dtype=torch.float64).expand(1, 2, 48, 48)
    return Case(eye, eye, scale=1.0)


def few_values(g: torch.Generator) -> Case:
    """Scores are small integers: the median is one of many equals, or between two values."""
    signs = [torch.randint(-1, 2, (1, 2, n, 2), generator=g).double() for n in (40, 333)]
    return Case(signs[0], signs[1], scale=1.0)


def sink(g: torch.Generator) -> Case:
    case = _case(g, 2, 3, 100, 16, causal=True)
    case.queries[..., 0] = 8
    case.keys[:, :2, 0, 0] = 12
    return case


def shifted(g: torch.Generator) -> Case:
    """Scores far from zero beside their spread."""
    case = _case(g, 1, 2, 64, 16)
    case.queries[..., 3] = 40
    case.keys[..., 3] = 40
    return case


def not_finite(g: torch.Generator) -> Case:
    case = _case(g, 1, 2, 50, 8, causal=True)
    case.queries[0, 0, 7, 3] = torch.nan
    case.queries[0, 1, 9, 0] = torch.inf
    case.keys[0, 1, 40, 2] = -torch.inf  # queries from the 40th on see it
    return case


def long_rows(g: torch.Generator) -> Case:
    return _case(g, 1, 2, 11, 8, keys=5000)


def skewed(g: torch.Generator) -> Case:
    case = _case(g, 1, 1, 30, 8, keys=900)
    return replace(case, queries=case.queries.abs().exp(), keys=case.keys.exp())


def wide(g: torch.Generator) -> Case:
    return _case(g, 1, 2, 40, 400)


def odd_d(g: torch.Generator) -> Case:
    return _case(g, 2, 1, 37, 97, causal=True)


def d_1(g: torch.Generator) -> Case:
    return _case(g, 1, 2, 60, 1)


def no_query(g: torch.Generator) -> Case:
    return Case(_normal(g, 2, 3, 0, 8), _normal(g, 2, 3, 5, 8))


def no_key(g: torch.Generator) -> Case:
    return Case(_normal(g, 2, 3, 5, 8), _normal(g, 2, 3, 0, 8))


def no_sequence(g: torch.Generator) -> Case:
    return Case(_normal(g, 0, 3, 5, 8), _normal(g, 0, 3, 5, 8))


CASES: dict[str, Make] = {
    case.__name__: case
    for case in (
        every_key,
        causal,
        causal_after_a_cache,
        sliding_window,
        local_window,
        window_of_one,
        grouped_queries,
        fewer_keys_than_queries,
        masked,
        padded_left,
        no_key_to_see,
        one_key,
        one_query,
        huge_scores,
        equal_scores,
        one_hot,
        few_values,
        sink,
        shifted,
        not_finite,
        long_rows,
        skewed,
        wide,
        odd_d,
        d_1,
        no_query,
        no_key,
        no_sequence,
    )
}


def make(name: str, dtype: str) -> Case:
    """The case, rounded to the dtype."""
    case = CASES[name](torch.Generator().manual_seed(len(name)))
    return replace(case, queries=case.queries.to(DTYPES[dtype]), keys=case.keys.to(DTYPES[dtype]))
