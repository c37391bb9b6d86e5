"""``pairs`` and ``neighbors`` of the Triton backend against float64, on one set of rows or on two."""

from __future__ import annotations

import bounds
import torch
from checks import moved, within
from torch import Tensor

from fastaniso.ops import reference
from fastaniso.ops import triton as kernels
from fastaniso.state import NO_ROW

START, OTHER_START = 1000, 70_000
BINS = 100
UNIFORMITY_T = [2.0]
THRESHOLDS = [0.1]


def all_cosines(hidden: Tensor, mask: Tensor | None, other: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines of the pairs in float64 and both indices of each, on the CPU."""
    cosines, i, j, _ = reference._cosines(hidden, mask, other, None, START, START if other is None else OTHER_START)
    i, j = i[:, None].expand(cosines.shape), j.expand(cosines.shape)
    chosen = i < j if other is None else torch.ones_like(i, dtype=torch.bool)
    return cosines[chosen].cpu(), i[chosen].cpu(), j[chosen].cpu()


def check_pairs(
    hidden: Tensor,
    mask: Tensor | None,
    device: str,
    *,
    other: Tensor | None = None,
    bins: int = BINS,
    uniformity_t: list[float] = UNIFORMITY_T,
    thresholds: list[float] = THRESHOLDS,
    precision: str = "exact",
) -> None:
    """Everything at once, of ``hidden`` (outer, inner, d) on the CPU, or of its pairs with ``other``."""
    asked = (bins, True, True, uniformity_t, thresholds, START, OTHER_START)
    # Float64 is as good on a GPU, and fast enough there for thousands of rows.
    there = (*moved(hidden, mask, device), None if other is None else moved(other, None, device)[0])
    got = [t.cpu() for t in kernels.pairs(*there, None, *asked, precision)]
    want = [t.cpu() for t in reference.pairs(*there, None, *asked)]
    for one, two in zip(got, want, strict=True):
        assert (one.shape, one.dtype) == (two.shape, two.dtype)
    counts, histogram, powers, exponentials, above, extrema, places = got
    cosines, i, j = all_cosines(*there)
    dim, dtype = hidden.shape[2], hidden.dtype
    error = bounds.cosine(dim, dtype, precision)
    assert torch.equal(counts, want[0]), f"counts {counts}, expected {want[0]}"

    assert histogram.sum() == counts[0], f"{histogram.sum()} pairs in bins, {counts[0]} in all"
    ordered, below = cosines.sort().values, histogram.cumsum(0)[:-1]
    edges = torch.linspace(-1, 1, bins + 1, dtype=torch.float64)[1:-1]
    # A cosine may be counted on the other side of an edge that it is within its error of.
    assert (below >= torch.searchsorted(ordered, edges - error)).all(), "too few below an edge"
    assert (below <= torch.searchsorted(ordered, edges + error)).all(), "too many below an edge"

    within(powers, want[2], bounds.pair_moments(cosines, dim, dtype, precision), "moments")
    for t, total in zip(uniformity_t, exponentials, strict=True):
        exact = (2 * t * (cosines - 1)).exp()
        # The exponential's own error is 2 ulp, and its argument's 2t·2 ulp.
        own = (2 * t * error + bounds.SAFETY * (4 * t + 4) * bounds.rounding(dtype)) * exact
        within(total, exact.sum(), own.sum() + bounds.sums(exact, dim, dtype), f"exponential {t}")
    for threshold, number in zip(thresholds, above, strict=True):
        assert (cosines > threshold + error).sum() <= number <= (cosines > threshold - error).sum(), threshold

    if not len(cosines):
        assert extrema.tolist() == [torch.inf, -torch.inf]
        assert places.eq(-1).all()
        return
    within(extrema, want[5], torch.full((2,), error, dtype=torch.float64), "extrema")
    for value, (row, column) in zip(extrema, places, strict=True):
        here = cosines[(i == row) & (j == column)]
        assert len(here) == 1, f"no pair ({row}, {column})"
        assert abs(here - value) <= error, f"the cosine of ({row}, {column}) is {here}, not {value}"


def check_parts(hidden: Tensor, mask: Tensor | None, device: str) -> None:
    """What is asked for alone is what it is among everything (sums to a rounding), and the rest is empty."""
    rows = moved(hidden, mask, device)
    whole = kernels.pairs(*rows, None, None, BINS, True, True, UNIFORMITY_T, THRESHOLDS, START, START)
    for place, (bins, moments, extrema, uniformity_t, thresholds) in enumerate(
        (
            (BINS, False, False, [], []),
            (0, True, False, [], []),
            (0, False, False, UNIFORMITY_T, []),
            (0, False, False, [], THRESHOLDS),
            (0, False, True, [], []),
        ),
        start=1,
    ):
        got = kernels.pairs(*rows, None, None, bins, moments, extrema, uniformity_t, thresholds, START, START)
        asked = {0, place} | ({6} if extrema else set())
        for number, (part, all_of_it) in enumerate(zip(got, whole, strict=True)):
            if number in asked:
                torch.testing.assert_close(part, all_of_it, rtol=1e-6, atol=1e-6 if part.is_floating_point() else 0)
            else:
                assert part.numel() == 0, (place, number)


def check_neighbors(
    hidden: Tensor,
    mask: Tensor | None,
    k: int,
    device: str,
    *,
    other: Tensor | None = None,
    both: bool = False,
    precision: str = "exact",
) -> None:
    """The k best of each row of ``hidden`` among the others or in ``other``, and the other way if ``both``."""
    there = (*moved(hidden, mask, device), None if other is None else moved(other, None, device)[0])
    asked = (k, both, START, OTHER_START)
    got = [t.cpu() for t in kernels.neighbors(*there, None, None, None, *asked, precision)]
    want = [t.cpu() for t in reference.neighbors(*there, None, None, None, *asked)]
    assert torch.equal(got[0], want[0]), f"counts {got[0]}, expected {want[0]}"
    cosines, i, j = (t.cpu() for t in reference._cosines(*there, None, 0, 0)[:3])
    n, m = (hidden if rows is None else rows for rows in (None, other))
    table = torch.full((n.shape[0] * n.shape[1], m.shape[0] * m.shape[1]), -torch.inf, dtype=torch.float64)
    table[i[:, None], j] = cosines
    if other is None:
        table.fill_diagonal_(-torch.inf)
    starts = (START, OTHER_START) if other is not None else (START, START)
    error = bounds.cosine(hidden.shape[2], hidden.dtype, precision)
    _check_best(got[1], got[2], want[1], table, starts[1], error)
    if both:
        _check_best(got[3], got[4], want[3], table.T, starts[0], error)
    else:
        assert got[3].shape == got[4].shape == (0, k)


def check_least(hidden: Tensor, mask: Tensor | None, other: Tensor, device: str) -> None:
    """Of the same neighbours those are left that reach what is asked of each row, and in the same order."""
    there = (*moved(hidden, mask, device), moved(other, None, device)[0], None)
    asked = (6, True, START, OTHER_START)
    counts, *lists = kernels.neighbors(*there, None, None, *asked)
    # Each row's own: all, the third of them (which itself is found), one between two, none.
    least = []
    for cosines in lists[::2]:
        kth, (high, low) = cosines[:, 2], (cosines[:, 1], cosines[:, 4])
        kinds = torch.stack((torch.full_like(kth, -torch.inf), kth, high / 2 + low / 2, torch.full_like(kth, 2)))
        least.append(kinds.gather(0, torch.arange(len(kth), device=kth.device)[None] % 4)[0])
    again, *fewer = kernels.neighbors(*there, *least, *asked)
    assert torch.equal(counts, again)
    for cosines, at, some, some_at, floor in zip(lists[::2], lists[1::2], fewer[::2], fewer[1::2], least, strict=True):
        left_out = cosines < floor[:, None]
        assert bool(left_out.any()) == (len(cosines) > 1)
        assert torch.equal(some, cosines.masked_fill(left_out, -torch.inf))
        assert torch.equal(some_at, at.masked_fill(left_out, -1))


def _check_best(best: Tensor, at: Tensor, want: Tensor, table: Tensor, start: int, error: float) -> None:
    """``best`` (n, k) within ``error`` of what float64 finds, and of the cosines in ``table`` at the places ``at``."""
    assert (best.shape, best.dtype, at.dtype) == (want.shape, want.dtype, torch.int64)
    within(best.double(), want.double(), torch.full(best.shape, error, dtype=torch.float64), "neighbours' cosines")
    found = at >= 0
    assert torch.equal(found, best > -torch.inf)
    places = torch.where(found, at - start, table.shape[1])
    assert (places <= table.shape[1]).all()
    there = torch.nn.functional.pad(table, (0, 1), value=-torch.inf).gather(1, places)
    assert ((there - best).abs() <= error)[found].all(), "a neighbour is not where it is said to be"
    assert all(len(set(row[row >= 0].tolist())) == int((row >= 0).sum()) for row in at), "a neighbour twice"
    equal = best[:, 1:] == best[:, :-1]
    assert (at[:, 1:] > at[:, :-1])[equal & found[:, 1:]].all(), "equals are not in order of their indices"


def check_exact(n: int, dtype: torch.dtype, device: str) -> None:
    """Cosines that are exact in any arithmetic, multiples of ¼, so that every bin, place and tie must be right."""
    generator = torch.Generator().manual_seed(11)
    hidden = torch.zeros(n, 32)
    for row in hidden:
        size = 1 if torch.rand((), generator=generator) < 0.5 else 4
        places = torch.randperm(32, generator=generator)[:size]
        row[places] = torch.randint(0, 2, (size,), generator=generator) * 2.0 - 1
    hidden = hidden.to(dtype)[None]
    hidden[0, 17] = 0
    asked = (64, False, True, [], [0.5, -0.5, 0.0, 1.0, -1.0], START, START)
    got = kernels.pairs(moved(hidden, None, device)[0], None, None, None, *asked)
    for one, two in zip(got, reference.pairs(hidden, None, None, None, *asked), strict=True):
        assert torch.equal(one.cpu(), two)
    for k in (3, 20):
        searched = (None, None, None, None, None, k, False, START, START)
        got = kernels.neighbors(moved(hidden, None, device)[0], *searched)
        for one, two in zip(got, reference.neighbors(hidden, *searched), strict=True):
            assert torch.equal(one.cpu(), two)


def check_fast(hidden: Tensor, device: str) -> None:
    """Rounded float32 rows: no further from float64 than that rounding, and not the exact products."""
    check_pairs(hidden, None, device, precision="fast")
    check_neighbors(hidden, None, 5, device, precision="fast")
    rows, _ = moved(hidden, None, device)
    asked = (rows, None, None, None, None, None, 5, False, 0, 0)
    exact, fast = (kernels.neighbors(*asked, precision)[1].cpu() for precision in ("exact", "fast"))
    difference = (fast - exact)[exact > -torch.inf]
    assert 1e-7 < difference.square().mean().sqrt() < 2e-4


def run_both(hidden: Tensor, mask: Tensor | None, other: Tensor) -> list[Tensor]:
    """Every tensor that the two ops make of rows on their device."""
    made: list[Tensor] = []
    for theirs in (None, other):
        made += kernels.pairs(hidden, mask, theirs, None, BINS, True, True, UNIFORMITY_T, THRESHOLDS, START, START)
        made += kernels.neighbors(hidden, mask, theirs, None, None, None, 5, theirs is not None, START, START)
    return made


def check_same_bits(hidden: Tensor, mask: Tensor | None, device: str) -> None:
    """Two runs of both ops give the same bits."""
    rows = moved(hidden, mask, device)
    for one, two in zip(run_both(*rows, rows[0][:, ::2]), run_both(*rows, rows[0][:, ::2]), strict=True):
        assert torch.equal(one, two)


def check_beyond_int32(device: str) -> None:
    """The last rows of 600 000 × 4096 start beyond 2³¹ numbers: alone, they give what they give at the end."""
    generator = torch.Generator(device).manual_seed(8)
    n, dim, kept = 600_000, 4096, 500
    hidden = torch.randn(n, dim, generator=generator, device=device, dtype=torch.bfloat16)[None]
    mask = torch.zeros(1, n, dtype=torch.bool, device=device)
    mask[:, -kept:] = True
    last = hidden[:, -kept:].cpu()
    asked = (BINS, True, True, [], [])
    counts, histogram, powers, _, _, extrema, places = kernels.pairs(hidden, mask, None, None, *asked, 0, 0)
    alone = kernels.pairs(last.to(device), None, None, None, *asked, n - kept, n - kept)
    assert counts.tolist() == [kept * (kept - 1) // 2, n * (n - 1) // 2 - kept * (kept - 1) // 2, 0, NO_ROW, NO_ROW]
    for one, two in zip((histogram, extrema, places), (alone[1], alone[5], alone[6]), strict=True):
        assert torch.equal(one, two)
    torch.testing.assert_close(powers, alone[2], rtol=1e-6, atol=1e-9)
    _, best, at, _, _ = kernels.neighbors(hidden, mask, None, None, None, None, 4, False, 0, 0)
    asked_alone = (None, None, None, None, None, 4, False, n - kept, n - kept)
    _, best_alone, at_alone, _, _ = kernels.neighbors(last.to(device), *asked_alone)
    assert torch.equal(best[-kept:], best_alone)
    assert torch.equal(at[-kept:], at_alone)
    assert best[:-kept].eq(-torch.inf).all()
