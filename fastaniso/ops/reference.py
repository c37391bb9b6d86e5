"""The ops in float64, every intermediate written out: slow, obviously right, on any device; what tests measure by."""

from __future__ import annotations

import torch
from torch import Tensor

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
