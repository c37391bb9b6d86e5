"""A torchmetrics metric of hidden states: sums, minima and maxima alone, so that ranks and runs merge."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastaniso.ops import dispatch as ops
from fastaniso.rows import as_rows
from fastaniso.state import NO_ROW, Coverage, Moments
from fastaniso.statistics.catalogue import asked_for
from fastaniso.statistics.metric import States

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ModuleNotFoundError(
        "AnisotropyMetric needs the package torchmetrics, which is not installed: pip install 'fastaniso[train]'",
        name="torchmetrics",
    ) from error


class AnisotropyMetric(Metric):  # type: ignore[misc]  # its types depend on what is installed
    """Mean cosine over the n(n−1) ordered pairs i ≠ j of all rows, and other metrics of linear sums, over all ranks.

    ``compute`` gives a dict of float64 scalars on the metric's device, as ``self.log_dict`` takes it: a metric of
    several numbers by ``name_part``. Rows that are zero or hold NaN or Inf are left out and counted as
    ``rows_invalid``. Neither ``update`` nor ``compute`` waits for the device.

    The states are float64 sums (4, d) and scalars with ``dist_reduce_fx`` "sum", "min" and "max": O(d) to synchronise.
    Spectral scores are not among the metrics, because central scatters do not add up; ``fastaniso.probe`` has them.

    Args:
        dim: Numbers in a row, d.
        metrics: Names of linear metrics, as ``describe`` takes them.
        backend: "auto", "triton", "cpu" or "reference".
        options: Those of ``torchmetrics.Metric``.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False

    kept: Tensor
    masked: Tensor
    zero: Tensor
    nonfinite: Tensor
    norms: Tensor
    norm_min: Tensor
    norm_max: Tensor
    sums: Tensor

    def __init__(
        self,
        dim: int,
        metrics: Any = ("mean_cosine", "drift", "norms"),
        *,
        backend: str = "auto",
        **options: Any,
    ) -> None:
        """No rows yet."""
        super().__init__(**options)
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
            raise ValueError(f"dim: expected the numbers in a row (a positive int), got {dim!r}")
        if backend not in ops.BACKENDS:
            raise ValueError(f"backend: expected one of {', '.join(ops.BACKENDS)}, got {backend!r}")
        self.dim = dim
        self.backend = backend
        self._asked = asked_for(metrics, (), who="an AnisotropyMetric")
        for name in ("kept", "masked", "zero", "nonfinite"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        # Σ‖x‖, Σ‖x‖², Σ‖u‖², Σ‖u‖⁴
        self.add_state("norms", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("norm_min", torch.tensor(torch.inf, dtype=torch.float64), dist_reduce_fx="min")
        self.add_state("norm_max", torch.tensor(-torch.inf, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("sums", torch.zeros(4, dim, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, hidden: Any, mask: Any = None) -> None:
        """Add rows ``[..., d]`` where ``mask`` ``[...]`` is True."""
        rows = as_rows(hidden, mask)
        if rows.dim != self.dim:
            raise ValueError(f"hidden: expected rows of dim={self.dim} numbers, got {rows.dim}")
        state = ops.moments(rows, backend=self.backend)
        for count, name in zip(state.counts[:4], ("kept", "masked", "zero", "nonfinite"), strict=True):
            setattr(self, name, getattr(self, name) + count)
        self.norms = self.norms + torch.cat((state.totals[:2], state.totals[4:]))
        self.norm_min = torch.minimum(self.norm_min, state.totals[2])
        self.norm_max = torch.maximum(self.norm_max, state.totals[3])
        self.sums = self.sums + state.sums

    def compute(self) -> dict[str, Tensor]:
        """The metrics by name, and how many rows counted and could not be normalised."""
        states = States(self.state)
        values = {"rows": self.kept, "rows_invalid": self.zero + self.nonfinite}
        for entry in self._asked:
            assert entry.metric.value is not None  # asked_for refuses what rows do not suffice for
            value = entry.metric.value(states, entry.options)
            if isinstance(value, Tensor):
                values[entry.label] = value
            else:
                values |= {f"{entry.label}_{part}": number for part, number in value.items()}
        return values

    @property
    def state(self) -> Moments:
        """The sums as a state, which merges with others and can be saved."""
        first = torch.full_like(self.kept, NO_ROW)
        totals = torch.cat((self.norms[:2], self.norm_min[None], self.norm_max[None], self.norms[2:]))
        counts = torch.stack((self.kept, self.masked, self.zero, self.nonfinite, first))
        return Moments(self.dim, Coverage(), frozenset(), counts, totals, self.sums)
