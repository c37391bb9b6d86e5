"""Each op of the Triton backend against float64: used under the interpreter, on a GPU, and by ``bench/gpu.py``."""

from __future__ import annotations

import bounds
import torch
from torch import Tensor

from fastaniso.ops import reference
from fastaniso.ops import triton as kernels

START = 1000
"""Index of the first row, so that a kernel that forgets it is caught."""


def check_moments(hidden: Tensor, mask: Tensor | None, device: str) -> None:
    """``hidden`` (outer, inner, d) on the CPU."""
    on_device, device_mask = moved(hidden, mask, device)
    got = [t.cpu() for t in kernels.moments(on_device, device_mask, START)]
    _check_linear(got, hidden, mask)


def check_gram(hidden: Tensor, mask: Tensor | None, device: str) -> None:
    on_device, device_mask = moved(hidden, mask, device)
    got = [t.cpu() for t in kernels.gram(on_device, device_mask, True, True, START)]
    _check_linear(got[:3], hidden, mask)
    want = reference.gram(hidden, mask, True, True, START)
    rows, units = _kept(hidden, mask)
    for unit, values in ((False, rows), (True, units)):
        scatter = got[3 + unit]
        assert torch.equal(scatter, scatter.T), "not symmetric"
        within(scatter, want[3 + unit], bounds.scatter(values, hidden.dtype, unit=unit), f"scatter, unit={unit}")


def check_gram_parts(hidden: Tensor, mask: Tensor | None, device: str) -> None:
    """Asking for one scatter gives the bits of asking for both, and (0, 0) for the other."""
    on_device, device_mask = moved(hidden, mask, device)
    both = kernels.gram(on_device, device_mask, True, True, START)
    for raw, unit in ((True, False), (False, True), (False, False)):
        got = kernels.gram(on_device, device_mask, raw, unit, START)
        for part, whole, asked in zip(got[3:], both[3:], (raw, unit), strict=True):
            assert torch.equal(part, whole if asked else whole.new_empty(0, 0)), (raw, unit)


def check_group_moments(hidden: Tensor, mask: Tensor | None, groups: Tensor, num_groups: int, device: str) -> None:
    on_device, device_mask = moved(hidden, mask, device)
    arguments = (on_device, device_mask, groups.to(device), num_groups, START)
    counts, unit_sum, unit_squared, dropped = (t.cpu() for t in kernels.group_moments(*arguments))
    want = reference.group_moments(hidden, mask, groups, num_groups, START)
    assert torch.equal(counts, want[0]), f"counts {counts}, expected {want[0]}"
    assert torch.equal(dropped, want[3]), f"dropped {dropped}, expected {want[3]}"
    inside = (groups >= 0) & (groups < num_groups)
    member = groups[_usable(hidden, inside if mask is None else mask & inside)]
    _, units = _kept(hidden, inside if mask is None else mask & inside)
    for group in range(num_groups):
        of_group = units[member == group]
        bound = bounds.sums(of_group, hidden.shape[2], hidden.dtype)
        within(unit_sum[group], want[1][group], bound, f"unit_sum[{group}]")
        bound = bounds.sums(of_group.square(), hidden.shape[2], hidden.dtype).sum()
        within(unit_squared[group], want[2][group], bound, f"unit_squared[{group}]")


def run_all(hidden: Tensor, mask: Tensor | None, groups: Tensor, num_groups: int) -> list[Tensor]:
    """Every tensor that the three ops make of rows on their device."""
    return [
        *kernels.moments(hidden, mask, START),
        *kernels.gram(hidden, mask, True, True, START),
        *kernels.group_moments(hidden, mask, groups, num_groups, START),
    ]


def check_same_bits(hidden: Tensor, mask: Tensor | None, groups: Tensor, num_groups: int, device: str) -> None:
    """Two runs of every op give the same bits."""
    arguments = (*moved(hidden, mask, device), groups.to(device), num_groups)
    for one, two in zip(run_all(*arguments), run_all(*arguments), strict=True):
        assert torch.equal(one, two)


def check_beyond_int32(device: str) -> None:
    """The last rows of 600 000 × 4096 start beyond 2³¹ numbers: alone, they give what they give at the end."""
    generator = torch.Generator(device).manual_seed(8)
    n, dim, kept = 600_000, 4096, 500
    hidden = torch.randn(n, dim, generator=generator, device=device, dtype=torch.bfloat16)[None]
    mask = torch.zeros(1, n, dtype=torch.bool, device=device)
    mask[:, -kept:] = True
    counts, totals, sums = kernels.moments(hidden, mask, START)
    last = hidden[:, -kept:].cpu()
    _, want_totals, want_sums = reference.moments(last, None, START)
    assert counts.tolist()[:4] == [kept, n - kept, 0, 0]
    torch.testing.assert_close(totals.cpu(), want_totals, rtol=1e-5, atol=0)
    torch.testing.assert_close(sums.cpu(), want_sums, rtol=1e-5, atol=1e-4)
    scatter = kernels.gram(hidden, mask, True, False, START)[3].cpu()
    want = reference.gram(last, None, True, False, START)[3]
    assert (scatter - want).abs().max() <= 2.0**-17 * want.diagonal().max()


def some_groups(hidden: Tensor, num_groups: int) -> Tensor:
    """A group for every row (outer, inner), some outside 0..num_groups−1; the first group has half of the rows."""
    generator = torch.Generator().manual_seed(7)
    groups = torch.randint(-1, num_groups + 1, hidden.shape[:2], generator=generator)
    return torch.where(torch.rand(hidden.shape[:2], generator=generator) < 0.5, 0, groups)


def two_axes(rows: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """(n, d) rows as a view (outer, inner, d) whose rows lie at two strides, with gaps and an odd offset."""
    n, dim = rows.shape
    inner = next((k for k in (5, 3, 2) if n and n % k == 0), 1)
    room = torch.full((inner + 1, n // inner + 2, dim + 3), torch.nan, dtype=rows.dtype)
    view = room.transpose(0, 1)[2:, 1:, 1 : dim + 1]
    view.copy_(rows.reshape(n // inner, inner, dim))
    return view, None if mask is None else mask.reshape(n // inner, inner)


def moved(hidden: Tensor, mask: Tensor | None, device: str) -> tuple[Tensor, Tensor | None]:
    """Rows at the same strides on the device, and their mask."""
    if device == "cpu":
        return hidden, mask
    outer, inner, dim = hidden.shape
    # The same strides on the device: room for the whole span, then the same view.
    span = 1 + (max(outer, 1) - 1) * hidden.stride(0) + (max(inner, 1) - 1) * hidden.stride(1) + dim - 1
    moved = torch.full((span,), torch.nan, dtype=hidden.dtype, device=device)
    moved = moved.as_strided(hidden.shape, hidden.stride())
    moved.copy_(hidden)
    return moved, None if mask is None else mask.to(device)


def _usable(hidden: Tensor, mask: Tensor | None) -> Tensor:
    usable = hidden.isfinite().all(2) & (hidden != 0).any(2)
    return usable if mask is None else usable & mask


def _kept(hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    rows = hidden[_usable(hidden, mask)].double()
    scaled = rows / rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return rows, torch.nn.functional.normalize(scaled, dim=1)


def _check_linear(got: list[Tensor], hidden: Tensor, mask: Tensor | None) -> None:
    counts, totals, sums = got
    want = reference.moments(hidden, mask, START)
    assert torch.equal(counts, want[0]), f"counts {counts}, expected {want[0]}"
    rows, units = _kept(hidden, mask)
    dim, dtype = hidden.shape[2], hidden.dtype
    bound = torch.stack([bounds.sums(t, dim, dtype) for t in (rows, rows.square(), units, units.square())])
    within(sums, want[2], bound, "sums")
    norm = bounds.unit_error(dim, dtype) + 4 * bounds.SAFETY * bounds.rounding(dtype)
    total = (norm + bounds.SAFETY * 1024**0.5 * bounds.rounding(dtype)) * want[1].abs()
    total[1], total[4] = bound[1].sum(), bound[3].sum()
    total[2:4] = norm * want[1][2:4].abs()
    total[5] *= 4
    within(totals, want[1], total, "totals")


def within(got: Tensor, want: Tensor, bound: Tensor, what: str) -> None:
    """Every number of ``got`` is within ``bound`` of the one wanted."""
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    assert got.dtype == want.dtype, f"{what}: {got.dtype}, expected {want.dtype}"
    wrong = ~((got == want) | ((got - want).abs() <= bound))
    if wrong.any():
        worst = ((got - want).abs() / bound)[wrong].max()
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {wrong.numel()} numbers off, worst {worst:.3g} × the bound"
        )
