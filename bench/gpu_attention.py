"""``attention`` on a GPU: against what a careful user writes, and beside attention itself without statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.gpu_tools import peak_mib, row, timed
from bench.harness import OURS, Row
from fastaniso.ops import reference
from fastaniso.ops import triton as kernels

BINS, RANGE, PLACES = 512, (-32.0, 32.0), 64
COMPARED = 512
"""Last queries of the first head that float64 looks at."""


@dataclass(frozen=True)
class Shape:
    """Sequences, heads and heads of keys, tokens, numbers of a head."""

    batch: int
    heads: int
    groups: int
    tokens: int
    dim: int
    dtype: torch.dtype
    causal: bool

    @property
    def words(self) -> str:
        """What the columns of a row do not say."""
        return f"{self.batch} × {self.heads} heads of {self.groups}{', causal' if self.causal else ''}"


SHAPES = (
    Shape(1, 32, 8, 4096, 128, torch.bfloat16, causal=True),
    Shape(32, 12, 12, 512, 64, torch.bfloat16, causal=False),
    Shape(1, 4, 1, 32_768, 128, torch.bfloat16, causal=True),
    Shape(1, 32, 8, 4096, 128, torch.float32, causal=True),
)


def some_heads(shape: Shape) -> tuple[Tensor, Tensor]:
    """Queries and keys whose scores have a deviation of about two."""
    generator = torch.Generator("cuda").manual_seed(0)
    queries, keys = (
        torch.randn(shape.batch, heads, shape.tokens, shape.dim, generator=generator, device="cuda") * 1.4
        for heads in (shape.heads, shape.groups)
    )
    return queries.to(shape.dtype), keys.to(shape.dtype)


def ours(queries: Tensor, keys: Tensor, causal: bool) -> tuple[Tensor, ...]:
    return kernels.attention(queries, keys, None, None, queries.shape[3] ** -0.5, causal, None, BINS, *RANGE, PLACES)


def torch_blocks(queries: Tensor, keys: Tensor, causal: bool, rows: int = 512) -> dict[str, Tensor]:
    """All that the op takes, of some queries at a time, so that no map is kept either."""
    heads, tokens, dim = queries.shape[1:]
    keys = keys.repeat_interleave(heads // keys.shape[1], dim=1)
    sums: dict[str, Any] = {
        "rows": torch.zeros(heads, 5, dtype=torch.float64, device=queries.device),
        "received": torch.zeros(heads, PLACES, dtype=torch.float64, device=queries.device),
        "histogram": torch.zeros(heads, BINS, device=queries.device),
    }
    moments = []
    every = torch.arange(tokens, device=queries.device)
    for first in range(0, tokens, rows):
        part = slice(first, first + rows)
        scores = (queries[:, :, part] @ keys.mT).float() * dim**-0.5
        seen = (every <= every[part, None]) if causal else torch.ones_like(scores[0, 0], dtype=torch.bool)
        hidden = scores.masked_fill(~seen, -torch.inf)
        maps = hidden.softmax(3)
        entropy = torch.special.entr(maps).sum(3)
        number = seen.sum(1)
        # Of keys that are not seen the map has zeros, which come first in order.
        order = maps.masked_fill(~seen, -1).sort(3).values
        middle = torch.stack((tokens - 1 - (number - 1) // 2, tokens - 1 - number // 2), 1)
        median = order.gather(3, middle.expand(*order.shape[:3], 2)).mean(3)
        least = order.gather(3, (tokens - number)[:, None].expand(*order.shape[:3], 1))[..., 0]
        normal = entropy / number.clamp(min=2).log()
        taken = (entropy, normal, maps.amax(3), median, least)
        sums["rows"] += torch.stack([each.sum((0, 2), dtype=torch.float64) for each in taken], 1)
        sums["received"] += maps[..., :PLACES].sum((0, 2), dtype=torch.float64)
        for head in range(heads):
            sums["histogram"][head] += scores[:, head][:, seen].histc(BINS, *RANGE)
        zeros = scores.masked_fill(~seen, 0)
        moments.append(
            (
                zeros.sum((0, 2, 3), dtype=torch.float64),
                zeros.square().sum((0, 2, 3), dtype=torch.float64),
                scores.masked_fill(~seen, torch.inf).amin((0, 2, 3)).double(),
                hidden.amax((0, 2, 3)).double(),
                torch.full((heads,), queries.shape[0], device=queries.device) * number.sum(),
            )
        )
    total, square, least, largest, count = (torch.stack(part) for part in zip(*moments, strict=True))
    central = square.sum(0) - total.sum(0) ** 2 / count.sum(0)
    sums["scores"] = torch.stack((total.sum(0), central, least.amin(0), largest.amax(0)), 1)
    return sums


def bench_attention(shape: Shape) -> list[Row]:
    """The limit is the time of torch's own attention, whose product with the values is as long as that with the keys.

    The error is that of the mean entropy of the last queries of a head.
    """
    queries, keys = some_heads(shape)
    rounds = 5 if shape.tokens > 8192 else 10
    several = shape.heads != shape.groups
    calls: dict[str, Callable[[], object]] = {
        OURS: lambda: ours(queries, keys, shape.causal),
        "sdpa: no statistics": lambda: F.scaled_dot_product_attention(
            queries, keys, keys, is_causal=shape.causal, enable_gqa=several
        ),
    }
    timings = timed(calls, rounds)
    blocks: dict[str, Callable[[], object]] = {"torch_blocks": lambda: torch_blocks(queries, keys, shape.causal)}
    timings |= timed(blocks, 3)
    calls |= blocks
    limit = timings["sdpa: no statistics"].p50
    last, their = queries[:1, :1, -COMPARED:], keys[:1, :1]
    got = ours(last, their, shape.causal)[3][0, 0]
    want = reference.attention(last, their, None, None, shape.dim**-0.5, shape.causal, None, BINS, *RANGE, PLACES)[3][
        0, 0
    ]
    operations = 2 * shape.batch * shape.heads * shape.tokens**2 * shape.dim / (2 if shape.causal else 1)
    size = (shape.tokens, shape.dim, shape.dtype)
    return [
        replace(
            row(
                "attention",
                name,
                size,
                timing,
                tflop_per_s=operations / timing.p50 / 1e12,
                share_of_limit=limit / timing.p50,
                ratio_to_ours=timing.p50 / timings[OURS].p50,
                peak_mib=peak_mib(calls[name]),
                error=abs(float(got / want) - 1) if name == OURS else None,
            ),
            input=shape.words,
            gb_per_s=(queries.nbytes + keys.nbytes) / timing.p50 / 1e9,
        )
        for name, timing in timings.items()
    ]
