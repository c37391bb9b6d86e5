"""The ops in float64, every intermediate written out: slow, obviously right, on any device; what tests measure by."""

from __future__ import annotations

import torch
from torch import Tensor

from fastaniso.ops.reference_attention import attention as attention
from fastaniso.state import NO_ROW


def moments(hidden: Tensor, mask: Tensor | None, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Counts (5,), totals (6,) and sums (4, d) of :class:`fastaniso.state.Moments`."""
    kept, norms, dropped = _keep(hidden, mask, start)
    units = kept / norms[:, None]
    lengths = units.square().sum(1)
    inf = norms.new_tensor([float("inf")])
    counts = torch.cat((dropped.new_tensor([len(kept)]), dropped))
    totals = torch.stack(
        (
            norms.sum(),
            norms.square().sum(),
            torch.cat((norms, inf)).min(),
            torch.cat((norms, -inf)).max(),
            lengths.sum(),
            lengths.square().sum(),
        )
    )
    sums = torch.stack((kept.sum(0), kept.square().sum(0), units.sum(0), units.square().sum(0)))
    return counts, totals, sums


def group_moments(
    hidden: Tensor, mask: Tensor | None, groups: Tensor, num_groups: int, start: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Counts (G,), unit sums (G, d), Σ‖u‖² (G,) and dropped (5,) of :class:`fastaniso.state.GroupMoments`."""
    wanted = torch.ones_like(groups, dtype=torch.bool) if mask is None else mask
    inside = (groups >= 0) & (groups < num_groups)
    kept, norms, dropped = _keep(hidden, wanted & inside, start)
    outside = (wanted & ~inside).sum()
    dropped = torch.stack((dropped[0] - outside, dropped[1], dropped[2], outside, dropped[3]))
    units = kept / norms[:, None]
    rows = _flat(hidden)
    usable = rows.isfinite().all(1) & (rows != 0).any(1) & (wanted & inside).flatten()
    member = torch.nn.functional.one_hot(groups.flatten()[usable], num_groups).double()
    return member.sum(0).long(), member.T @ units, member.T @ units.square().sum(1), dropped


def gram(
    hidden: Tensor, mask: Tensor | None, raw: bool, unit: bool, start: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The three tensors of ``moments`` and the central scatters (d, d) of x and of u ((0, 0) when not asked for)."""
    kept, norms, _ = _keep(hidden, mask, start)
    nothing = kept.new_zeros(0, 0)
    scatter = _scatter(kept) if raw else nothing
    unit_scatter = _scatter(kept / norms[:, None]) if unit else nothing
    return (*moments(hidden, mask, start), scatter, unit_scatter)


def pairs(
    hidden: Tensor,
    mask: Tensor | None,
    other: Tensor | None,
    other_mask: Tensor | None,
    bins: int,
    moments: bool,
    extrema: bool,
    uniformity_t: list[float],
    thresholds: list[float],
    start: int,
    other_start: int,
    precision: str = "exact",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The seven tensors of :class:`fastaniso.state.Pairs`, empty where not asked for; always exact."""
    cosines, i, j, counts = _cosines(hidden, mask, other, other_mask, start, other_start)
    if other is None:
        upper = i[:, None] < j
        cosines, i, j = cosines[upper], i[:, None].expand_as(upper)[upper], j.expand_as(upper)[upper]
        counts = torch.cat((counts[:3] // 2, counts[3:]))
    else:
        cosines, i, j = cosines.flatten(), i.repeat_interleave(len(j)), j.repeat(len(i))
    histogram = (
        torch.bincount(((cosines + 1) * (bins / 2)).long().clamp(0, bins - 1), minlength=bins) if bins else i[:0]
    )
    deviation = cosines - cosines.sum() / max(len(cosines), 1)
    powers = torch.stack((cosines.sum(), *(deviation.pow(p).sum() for p in (2, 3, 4)), cosines.abs().sum()))
    nothing = cosines[:0]
    values, places = nothing, i[:0].view(0, 2)
    if extrema:
        values, places = cosines.new_tensor([torch.inf, -torch.inf]), i.new_full((2, 2), -1)
        if len(cosines):
            # Pairs are in order of (i, j), and the first of equals is the one wanted.
            values = torch.stack((cosines.min(), cosines.max()))
            first = [torch.nonzero(cosines == value)[0, 0] for value in values]
            places = torch.stack([torch.stack((i[at], j[at])) for at in first])
    return (
        counts,
        histogram,
        powers if moments else nothing,
        torch.stack([(2 * t * (cosines - 1)).exp().sum() for t in uniformity_t] or [nothing.sum()])[
            : len(uniformity_t)
        ],
        torch.stack([(cosines > t).sum() for t in thresholds] or [counts[0]])[: len(thresholds)],
        values,
        places,
    )


def neighbors(
    hidden: Tensor,
    mask: Tensor | None,
    other: Tensor | None,
    other_mask: Tensor | None,
    least: Tensor | None,
    other_least: Tensor | None,
    k: int,
    both: bool,
    start: int,
    other_start: int,
    precision: str = "exact",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The three tensors of :class:`fastaniso.state.Neighbors`, and the same the other way if ``both``; always exact."""
    cosines, i, j, counts = _cosines(hidden, mask, other, other_mask, start, other_start)
    if other is None:
        cosines.fill_diagonal_(-torch.inf)
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    count = hidden.shape[0] * hidden.shape[1]
    best, at = _best(cosines, i - start, j, torch.empty(count, k, dtype=dtype), least)
    others = other.shape[0] * other.shape[1] if both and other is not None else 0
    room = torch.empty(others, k, dtype=dtype)
    other_best, other_at = _best(cosines.T, j - other_start, i, room, other_least) if both else (room, at[:0])
    return counts, best, at, other_best, other_at


def _best(
    cosines: Tensor, rows: Tensor, candidates: Tensor, best: Tensor, least: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The best of each row that are not below its ``least``, in ``best``; kept rows are at ``rows``."""
    values, order = cosines.sort(dim=1, descending=True, stable=True)
    values, found = values[:, : best.shape[1]], candidates[order[:, : best.shape[1]]]
    best, at = best.fill_(-torch.inf), torch.full_like(best, -1, dtype=torch.int64)
    best[rows, : values.shape[1]] = values.to(best.dtype)
    at[rows, : values.shape[1]] = found
    empty = best == -torch.inf if least is None else (best == -torch.inf) | (best < least[:, None])
    return best.masked_fill_(empty, -torch.inf), at.masked_fill_(empty, -1)


def _cosines(
    hidden: Tensor, mask: Tensor | None, other: Tensor | None, other_mask: Tensor | None, start: int, other_start: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cosines (n, m) of kept rows and others, their indices (n,) and (m,), and counts (5,) over ordered pairs i ≠ j."""
    units, i, seen, first = _units(hidden, mask, start)
    if other is None:
        others, j, other_seen, other_first = units, i, seen, first.new_tensor([NO_ROW])
        lonely = 1  # a row has no pair with itself
    else:
        others, j, other_seen, other_first = _units(other, other_mask, other_start)
        lonely = 0

    def pairs_of(rows: Tensor, more: Tensor) -> Tensor:
        return rows * (more - lonely)

    everything = pairs_of(seen[0], other_seen[0])
    unmasked = pairs_of(seen[1], other_seen[1])
    kept = pairs_of(seen[2], other_seen[2])
    counts = torch.cat((torch.stack((kept, everything - unmasked, unmasked - kept)), first, other_first))
    return (units @ others.T).clamp(-1, 1), i, j, counts


def _units(hidden: Tensor, mask: Tensor | None, start: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Kept unit rows (m, d) and their indices (m,); how many rows there are, unmasked, kept (3,); the first invalid."""
    kept, norms, dropped = _keep(hidden, mask, start)
    rows = _flat(hidden)
    usable = rows.isfinite().all(1) & (rows != 0).any(1)
    if mask is not None:
        usable &= mask.flatten()
    indices = torch.nonzero(usable)[:, 0] + start
    seen = torch.stack((dropped.new_tensor(len(rows)), len(rows) - dropped[0], dropped.new_tensor(len(kept))))
    return kept / norms[:, None], indices, seen, dropped[3:]


def _scatter(rows: Tensor) -> Tensor:
    centred = rows - rows.sum(0) / max(len(rows), 1)
    return centred.T @ centred


def _keep(hidden: Tensor, mask: Tensor | None, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows that are kept and can be normalised (m, d), their norms (m,), and masked, zero, non-finite, first (4,)."""
    rows = _flat(hidden)
    wanted = torch.ones(len(rows), dtype=torch.bool, device=rows.device) if mask is None else mask.flatten()
    finite = rows.isfinite().all(1)
    nonzero = (rows != 0).any(1)
    invalid = wanted & ~(finite & nonzero)
    first = torch.nonzero(invalid)[:1, 0] + start
    dropped = torch.cat(
        (
            (~wanted).sum()[None],
            (wanted & finite & ~nonzero).sum()[None],
            (wanted & ~finite).sum()[None],
            first if len(first) else first.new_tensor([NO_ROW]),
        )
    )
    kept = rows[wanted & finite & nonzero]
    largest = kept.abs().amax(1) if len(kept) else kept.new_zeros(0)
    # Scaled by the largest entry, so that squares of 1e200 or 1e-200 neither overflow nor vanish.
    return kept, largest * (kept / largest[:, None]).square().sum(1).sqrt(), dropped


def _flat(hidden: Tensor) -> Tensor:
    return hidden.reshape(-1, hidden.shape[2]).double()
