"""How far a state of attention may be from float64 on the same rounded inputs, and the check that it is not further.

A score errs by the roundings of its d products, Σ|q_k·k_k| large; a row's softmax passes the largest of these errors
on twice (in its numerator and in its sum) and adds a few roundings of its own. Scores far below the largest have an
exponent of many units, whose rounding counts as often, and a weight that makes up for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import tolerance
import torch
from tolerance import SAFETY, rounding
from torch import Tensor

from fastaniso.heads import Heads
from fastaniso.ops.reference_attention import allowed_keys
from fastaniso.state import Attention

OWN = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Maps:
    """Of one head, by row measured: float64 scores and softmax (rows, S), the keys seen and their places among those
    kept, the error of a score and the kernel's pivot (rows,)."""

    scores: Tensor
    seen: Tensor
    places: Tensor
    softmax: Tensor
    error: Tensor
    pivots: Tensor


def maps_of(heads: Heads, state: Attention, head: int) -> Maps:
    """Every map of a head written out."""
    queries = heads.queries[:, head].double()
    keys = heads.keys[:, head // (heads.count // heads.keys.shape[1])].double()
    scores = state.scale * queries @ keys.mT
    allowed = allowed_keys(heads.queries, heads.keys, heads.key_mask, state.causal, state.window)
    measured = (scores.isfinite() | ~allowed).all(2) & allowed.any(2)
    if heads.query_mask is not None:
        measured &= heads.query_mask
    sizes = abs(state.scale) * queries.abs() @ keys.abs().mT
    kept = torch.ones(keys.shape[:2], dtype=torch.bool) if heads.key_mask is None else heads.key_mask
    places = (kept.cumsum(1) - 1)[:, None].expand(allowed.shape)[measured]
    scores, seen, sizes = scores[measured], allowed[measured], sizes[measured]
    stretch = min(heads.dim, tolerance.PRODUCT_STEPS)
    terms = stretch**0.5 + (heads.dim / stretch) ** 0.5 + 3
    one = SAFETY * terms * rounding(heads.queries.dtype) + heads.dim * OWN
    if not len(scores):
        return Maps(scores, seen, places, scores, scores.new_zeros(0), scores.new_zeros(0))
    softmax = scores.masked_fill(~seen, -torch.inf).softmax(1)
    # The kernel's pivot is the score in the middle of the keys seen; any near it has the same bound.
    place = (seen.cumsum(1) > seen.sum(1, keepdim=True) // 2).int().argmax(1)
    pivots = scores.gather(1, place[:, None])[:, 0]
    return Maps(scores, seen, places, softmax, one * sizes.masked_fill(~seen, 0).amax(1), pivots)


def check(ours: Attention, right: Attention, heads: Heads) -> None:
    """``ours`` against the reference's state of the same heads."""
    assert torch.equal(ours.counts[:, :6], right.counts[:, :6])
    assert torch.equal(ours.visible, right.visible)
    if ours.bins:
        assert torch.equal(ours.histogram.sum(1) + ours.counts[:, 6] + ours.counts[:, 7], ours.counts[:, 5])
    for head in range(heads.count):
        _check_head(ours, right, head, maps_of(heads, ours, head), rounding(heads.queries.dtype))


def _check_head(ours: Attention, right: Attention, head: int, maps: Maps, unit: float) -> None:
    scores = maps.scores[maps.seen]
    error = maps.error[:, None].expand(maps.seen.shape)[maps.seen]
    if not len(scores):
        assert ours.scores[head].tolist() == [0, 0, torch.inf, -torch.inf]
        assert not ours.rows[head].any()
        assert not ours.received[head].any()
        return
    worst = float(error.max())
    within(ours.scores[head, 2:], right.scores[head, 2:], torch.tensor([worst, worst]), "extremes")

    # Sums about a pivot: its distance is rounded, and they are added in float32 in stretches of 16 pairs of vectors.
    apart = (scores - maps.pivots[:, None].expand(maps.seen.shape)[maps.seen]).abs()
    sums = SAFETY * sqrt(16) * unit + OWN * len(scores)
    total = error.sum() + sums * apart.sum() + OWN * len(scores) * scores.abs().sum()
    within(ours.scores[head, 0], right.scores[head, 0], total, "sum of scores")
    distance = (scores - scores.mean()).abs()
    # What the pivots and the mean of all contribute, by rows, is subtracted again with the rounding that it has.
    square = 2 * ((distance + apart + error) * error).sum() + 4 * sums * (
        apart.square().sum() + distance.square().sum()
    )
    within(ours.scores[head, 1], right.scores[head, 1], square + OWN * len(scores) * distance.square().sum(), "square")

    below = (maps.scores.masked_fill(~maps.seen, -torch.inf).amax(1, keepdim=True) - maps.scores).masked_fill(
        ~maps.seen, 0
    )
    # Relative error of one weight: of its score and the largest, of the exponential and of the row's sum.
    weight = (
        torch.expm1(2 * maps.error[:, None] + SAFETY * unit * (below + 8 + sqrt(16) / 4)) + OWN * maps.seen.shape[1]
    )
    keys = maps.seen.sum(1)
    entropy = torch.special.entr(maps.softmax).sum(1)
    off = (maps.softmax * weight * (1 + below)).sum(1) * (1 + entropy)
    of_log = off / keys.clamp(min=2).double().log()
    middle = maps.softmax.masked_fill(~maps.seen, torch.inf).sort(1).values
    median = middle.gather(1, (keys // 2)[:, None])[:, 0]
    # These three have their exponent in float64.
    ends = torch.expm1(2 * maps.error + SAFETY * unit * (8 + sqrt(16) / 4)) + OWN * maps.seen.shape[1]
    bounds = torch.stack((off, of_log, ends * maps.softmax.amax(1), ends * median, ends * middle[:, 0]), 1).sum(0)
    within(ours.rows[head], right.rows[head], bounds + len(keys) * OWN * right.rows[head] + 1e-300, "rows")

    first = maps.seen & (maps.places < ours.positions)
    received = torch.zeros(ours.positions, dtype=torch.float64)
    received.index_add_(0, maps.places[first], (maps.softmax * weight)[first] + OWN * len(keys))
    within(ours.received[head], right.received[head], received + 1e-300, "received")

    if ours.bins:
        low, high = ours.score_range
        edges = torch.linspace(low, high, ours.bins + 1, dtype=torch.float64)
        # A score may be counted on the other side of an edge that it is within its error of.
        near = worst + 4 * unit * (edges.abs() + high - low)
        ordered = scores.sort().values
        beneath = torch.cat((ours.counts[head, 6:7], ours.histogram[head])).cumsum(0)
        assert (beneath >= torch.searchsorted(ordered, edges - near)).all()
        assert (beneath <= torch.searchsorted(ordered, edges + near, side="right")).all()


def within(ours: Tensor, right: Tensor, bound: Tensor, what: str) -> None:
    error = (ours - right).abs()
    assert (error <= bound).all(), f"{what}: {error / bound} times the bound"
