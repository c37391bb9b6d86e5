"""``attention`` of the Triton backend against float64: under the interpreter, on a GPU, and by ``bench/gpu.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import bounds
import torch
from checks import within
from torch import Tensor

from fastaniso.ops import triton as kernels
from fastaniso.ops.reference_attention import allowed_keys
from fastaniso.ops.reference_attention import attention as reference
from fastaniso.ops.triton import attention_shapes

BRIEF = ("one", "odd", "masked", "thousands", "large", "whole numbers", "one projection")
"""Of all checks on a GPU, those for every dtype: each compiles kernels of its own."""

NAMES = ("counts", "histogram", "scores", "rows", "received", "visible")


@dataclass(frozen=True)
class Asked:
    """Queries and keys on the CPU, and what is asked of them."""

    queries: Tensor
    keys: Tensor
    query_mask: Tensor | None = None
    key_mask: Tensor | None = None
    scale: float = 0.35
    causal: bool = False
    window: int | None = None
    bins: int = 32
    low: float = -2.5
    high: float = 3.0
    positions: int = 9

    def arguments(self, device: str = "cpu") -> tuple[Any, ...]:
        """As every backend takes them, at the same strides on ``device``."""
        tensors = (self.queries, self.keys, self.query_mask, self.key_mask)
        there = [None if t is None else _moved(t, device) for t in tensors]
        return (*there, *list(vars(self).values())[4:])


def _moved(tensor: Tensor, device: str) -> Tensor:
    if device == "cpu":
        return tensor
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size)
    room = torch.zeros(max(span, 1), dtype=tensor.dtype, device=device)
    return room.as_strided(tensor.shape, tensor.stride()).copy_(tensor) if tensor.numel() else tensor.to(device)


def make(
    batch: int,
    heads: int,
    groups: int,
    queries: int,
    keys: int,
    dim: int,
    dtype: torch.dtype,
    *,
    size: float = 1.0,
    masked: bool = False,
    seed: int = 5,
    **options: Any,
) -> Asked:
    """Queries and keys that lean to one side; masked, the first sequence keeps no key and the last no query."""
    generator = torch.Generator().manual_seed(seed)
    ours = (torch.randn(batch, heads, queries, dim, generator=generator) + 0.3) * size
    theirs = torch.randn(batch, groups, keys, dim, generator=generator) + 0.3
    masks: tuple[Tensor | None, Tensor | None] = (None, None)
    if masked:
        query_mask, key_mask = (torch.rand(batch, n, generator=generator) > 0.3 for n in (queries, keys))
        key_mask[0], query_mask[-1] = False, False
        masks = (query_mask, key_mask)
    return Asked(ours.to(dtype), theirs.to(dtype), *masks, **options)


def check(asked: Asked, device: str = "cpu") -> None:
    """Everything within what rounding allows."""
    got = [t.cpu() for t in kernels.attention(*asked.arguments(device))]
    # Float64 is as good on a GPU, and fast enough there for thousands of rows.
    want = [t.cpu() for t in reference(*asked.arguments(device))]
    for name, one, two in zip(NAMES, got, want, strict=True):
        assert (one.shape, one.dtype) == (two.shape, two.dtype), name
    counts, histogram, scores, rows, received, visible = got
    if not want[0][:, 5].any():
        assert all(map(torch.equal, got, want)), "something of no score"
        return
    assert torch.equal(counts[:, :6], want[0][:, :6]), f"counts {counts}, expected {want[0]}"
    assert torch.equal(visible, want[5]), f"visible {visible}, expected {want[5]}"
    for head in range(asked.queries.shape[1]):
        allowed = _Head(asked, head, device)
        allowed.check_bins(counts[head], histogram[head])
        within(scores[head], want[2][head], allowed.score_bounds(), f"scores of head {head}")
        within(rows[head], want[3][head], allowed.row_bounds(), f"rows of head {head}")
        within(received[head], want[4][head], allowed.received_bounds(), f"received by head {head}")


class _Head:
    """Scores of one head in float64, and how far rounding may move them and what follows from them."""

    def __init__(self, asked: Asked, head: int, device: str) -> None:
        queries, keys, query_mask, key_mask = asked.arguments(device)[:4]
        self.asked = asked
        self.unit = bounds.rounding(queries.dtype)
        ours, theirs = queries[:, head].double(), keys[:, head // (queries.shape[1] // keys.shape[1])].double()
        allowed = allowed_keys(queries, keys, key_mask, asked.causal, asked.window)
        scores = asked.scale * ours @ theirs.mT
        measured = (scores.isfinite() | ~allowed).all(2) & allowed.any(2)
        if query_mask is not None:
            measured &= query_mask
        self.seen = allowed[measured]
        self.scores = scores[measured].masked_fill(~self.seen, -torch.inf)
        size = abs(asked.scale) * ours.abs() @ theirs.abs().mT
        # A product's error, and the roundings of the scale and of the score.
        relative = bounds.cosine(queries.shape[3], queries.dtype) + 2 * self.unit
        self.errors = torch.where(self.seen, relative * size[measured], 0)
        kept = torch.ones_like(keys[:, 0, :, 0], dtype=torch.bool) if key_mask is None else key_mask
        self.places = (kept.cumsum(1) - 1)[:, None].expand(allowed.shape)[measured]

        self.attention = self.scores.softmax(1).nan_to_num(0)
        self.below = torch.where(self.seen, self.scores - self.scores.amax(1, keepdim=True), 0)
        worst = self.errors.amax(1, keepdim=True)
        # exp(s − m) of two scores off, of a rounded difference, and the sum that it is divided by: float32 sums of up
        # to 128 numbers in a thread and between threads.
        added = bounds.SAFETY * 128**0.5 * self.unit
        exponent = 4 * worst + 4 * self.unit * (1 - self.below)
        self.errors_of_attention = self.attention * (exponent.expm1() + added)
        self.added, self.worst = added, worst[:, 0]

    def check_bins(self, counts: Tensor, histogram: Tensor) -> None:
        """A score may be counted on the other side of an edge that it is within its error of."""
        asked = self.asked
        if not asked.bins:
            assert counts[6:].tolist() == [0, 0]
            return
        assert histogram.sum() + counts[6:].sum() == counts[5]
        step = (asked.high - asked.low) / asked.bins
        # The place among the bins is rounded too.
        slack = self.unit * 4 * max(abs(asked.low), abs(asked.high), 1) + self.errors[self.seen]
        scores = self.scores[self.seen]
        below = counts[6] + torch.cat((histogram.new_zeros(1), histogram.cumsum(0)))
        for place, number in enumerate(below.tolist()):
            edge = asked.low + place * step
            at_least, at_most = (scores + slack < edge).sum(), (scores - slack <= edge).sum()
            assert at_least <= number <= at_most, f"{number} below {edge}, expected {at_least} to {at_most}"

    def score_bounds(self) -> Tensor:
        """Error of Σs, Σ(s − s̄)², least, largest."""
        scores, errors = self.scores[self.seen], self.errors[self.seen]
        away = (scores - scores.sum() / max(len(scores), 1)).abs()
        rows = self.scores.shape[0]
        # A row's deviations are from its median, no further than a standard deviation from its mean.
        one = (self.added * self.below.square().sum(1).sqrt() * self.seen.sum(1).sqrt()).sum()
        own = torch.finfo(torch.float64).eps * (rows + 64)
        mean = errors.sum() / max(len(errors), 1)
        square = (2 * away * (errors + mean) + (errors + mean) ** 2 + 2 * self.added * away.square()).sum()
        square += own * scores.square().sum()
        total = errors.sum() + one + own * scores.abs().sum()
        return (
            torch.stack((total, square, self.errors.max(), self.errors.max())).cpu() + torch.finfo(torch.float64).tiny
        )

    def row_bounds(self) -> Tensor:
        """Error of Σ entropy, Σ entropy / log(keys), Σ largest, Σ median, Σ least."""
        entropy = torch.special.entr(self.attention).sum(1)
        # d(entropy) = −Σ a·(log a + entropy)·d(score), and the roundings of log Z and of Σ a·(m − s).
        parts = 1 + entropy + (self.attention * self.below.abs()).sum(1)
        moved = 8 * self.worst * (entropy + self.worst) + self.added * parts
        normal = moved / self.seen.sum(1).clamp(min=2).log() + 4 * self.unit
        one = self.errors_of_attention.amax(1).sum()
        return torch.stack((moved.sum(), normal.sum(), one, one, one)).cpu() + torch.finfo(torch.float64).tiny

    def received_bounds(self) -> Tensor:
        """Error of the attention to each of the first keys."""
        first = [
            torch.where(self.seen & (self.places == place), self.errors_of_attention, 0).sum()
            for place in range(self.asked.positions)
        ]
        return torch.stack([*first, self.errors_of_attention.sum()])[:-1].cpu() + torch.finfo(torch.float64).tiny


def check_exact(dtype: torch.dtype, device: str = "cpu", *, length: int = 24) -> None:
    """Scores that are whole numbers in any arithmetic: every bin, place, extreme and median of ties must be right."""
    generator = torch.Generator().manual_seed(11)
    queries, keys = (torch.randint(-1, 2, (1, 2, length, 8), generator=generator).to(dtype) for _ in range(2))
    asked = Asked(queries, keys, scale=1.0, causal=True, bins=6, low=-3.0, high=3.0)
    got = [t.cpu() for t in kernels.attention(*asked.arguments(device))]
    want = [t.cpu() for t in reference(*asked.arguments(device))]
    for place in (0, 1, 5):
        assert torch.equal(got[place], want[place]), NAMES[place]
    assert torch.equal(got[2][:, [0, 2, 3]], want[2][:, [0, 2, 3]])
    torch.testing.assert_close(got[2][:, 1], want[2][:, 1], rtol=1e-6, atol=0)
    torch.testing.assert_close(got[3], want[3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[4], want[4], rtol=1e-5, atol=1e-5)


def check_same_bits(asked: Asked, device: str = "cpu") -> None:
    """Two runs give the same bits."""
    arguments = asked.arguments(device)
    for one, two in zip(kernels.attention(*arguments), kernels.attention(*arguments), strict=True):
        assert torch.equal(one, two)


def check_not_finite(dtype: torch.dtype, device: str = "cpu") -> None:
    """Queries and keys that are NaN or infinite: their rows are counted and left out, and masked ones do no harm."""
    asked = make(2, 2, 1, 20, 24, 8, dtype, causal=True, masked=True)
    assert asked.query_mask is not None
    assert asked.key_mask is not None
    asked.query_mask[0, 3], asked.key_mask[0, :] = True, True
    asked.key_mask[0, 6] = asked.key_mask[0, 2] = False
    asked.queries[0, 0, 3, 2] = torch.nan
    asked.keys[0, 0, 21, 0] = torch.inf
    asked.keys[0, 0, 6, 1] = asked.keys[0, 0, 2, 1] = torch.nan  # masked
    check(asked, device)


def check_fused(dtype: torch.dtype, device: str = "cpu", *, length: int = 21) -> None:
    """(B, T, 3·H·d) viewed as heads: no axis but the last is contiguous, and nothing is aligned."""
    fused = torch.randn(2, length, 3 * 2 * 5 + 1, generator=torch.Generator().manual_seed(2)).to(dtype)[:, :, 1:]
    queries, keys, _ = fused.unflatten(2, (3, 2, 5)).permute(2, 0, 3, 1, 4)
    check(Asked(queries, keys, causal=True), device)


def check_beyond_int32(device: str) -> None:
    """The last vectors of 600 000 at a stride of 4096 start beyond 2³¹ numbers: alone, they give the same."""
    n, dim, kept = 600_000, 64, 500
    generator = torch.Generator(device).manual_seed(8)
    vectors = torch.zeros(1, 1, n, 4096, dtype=torch.bfloat16, device=device)[..., :dim]
    vectors[:, :, -2 * kept :] = torch.randn(1, 1, 2 * kept, dim, generator=generator, device=device).bfloat16()
    mask = torch.zeros(1, n, dtype=torch.bool, device=device)
    mask[:, -kept:] = True
    asked = (dim**-0.5, True, 100, 64, -8.0, 8.0, 0)
    whole = kernels.attention(vectors, vectors, mask, None, *asked)
    last = vectors[:, :, -2 * kept :].contiguous()
    alone = kernels.attention(last, last, mask[:, -2 * kept :].contiguous(), None, *asked)
    assert whole[0][0].tolist() == [kept, n - kept, *alone[0][0].tolist()[2:]]
    assert torch.equal(whole[1], alone[1])
    for one, two in zip(whole[2:4], alone[2:4], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def all_checks(dtype: torch.dtype, device: str) -> dict[str, Callable[[], None]]:
    """What is worth looking at on a GPU, by name."""
    shapes: dict[str, tuple[tuple[int, int, int, int, int, int], dict[str, Any]]] = {
        "one": ((1, 1, 1, 1, 1, 1), {}),
        "odd": ((3, 2, 1, 37, 41, 33), {"masked": True, "positions": 70}),
        "short": ((2, 2, 2, 197, 197, 64), {}),
        "masked": ((3, 4, 2, 300, 500, 64), {"masked": True, "causal": True}),
        "wide": ((1, 1, 1, 500, 500, 300), {}),
        "thousands": ((1, 2, 1, 1500, 1500, 128), {"causal": True, "bins": 512, "low": -8.0, "high": 8.0}),
        "longer than registers": ((1, 1, 1, 500, 9000, 64), {"causal": True}),
        "window": ((1, 2, 2, 2000, 2000, 80), {"causal": True, "window": 257}),
        "window around": ((1, 1, 1, 1000, 1000, 64), {"window": 33, "bins": 8192}),
        "nothing more": ((1, 2, 2, 200, 200, 64), {"bins": 0, "positions": 0}),
        "large": ((1, 1, 1, 300, 300, 64), {"size": 300.0, "causal": True}),
    }
    if dtype != torch.float16:
        shapes["huge"] = ((1, 1, 1, 300, 300, 64), {"size": 1e25})
        shapes["tiny"] = ((1, 1, 1, 300, 300, 64), {"size": 1e-18})
    named: dict[str, Callable[[], None]] = {
        name: (lambda shape=shape, options=options: check(make(*shape, dtype, **options), device))
        for name, (shape, options) in shapes.items()
    }

    def in_small_launches() -> None:
        with patch.object(attention_shapes, "SCORE_BYTES", 2**18):
            check(make(2, 3, 3, 300, 300, 64, dtype, masked=True), device)

    named["in small launches"] = in_small_launches
    named["whole numbers"] = lambda: check_exact(dtype, device, length=700)
    named["not finite"] = lambda: check_not_finite(dtype, device)
    named["one projection"] = lambda: check_fused(dtype, device, length=200)
    named["same bits"] = lambda: check_same_bits(make(2, 4, 2, 900, 900, 64, dtype, masked=True), device)
    return named
