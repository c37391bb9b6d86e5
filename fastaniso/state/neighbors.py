"""The state of a search for neighbours: the best candidates so far of a range of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from fastaniso.state.base import NO_ROW, State, filled
from fastaniso.state.coverage import PairCoverage
from fastaniso.state.errors import StateMismatchError


@dataclass(frozen=True, eq=False)
class Neighbors(State):
    """The k largest cosines of each of n rows and the candidates they are with, largest first.

    ``start``    int: index in its source of the first of the n rows.
    ``counts``   int64 (5,): (row, candidate) pairs compared; left out for a masked row or candidate, and for one that
    cannot be normalised; index of the first such row and candidate (``NO_ROW`` if none).
    ``cosines``  float32 or float64 (n, k), −inf where there were fewer than k candidates or the row is left out.
    ``indices``  int64 (n, k), the candidates' indices in their source, the smaller first among equal cosines; −1 where
    the cosine is −inf.

    Coverage is of ordered pairs (row, candidate).
    """

    coverage: PairCoverage
    start: int
    counts: Tensor
    cosines: Tensor
    indices: Tensor

    _tensors = ("counts", "cosines", "indices")
    _settings: ClassVar[Mapping[str, Callable[[Any], Any]]] = {"start": int}
    _coverage = PairCoverage

    @property
    def k(self) -> int:
        """Neighbours kept for each row."""
        return self.cosines.shape[1]

    @property
    def stop(self) -> int:
        """Index after the last of the rows."""
        return self.start + self.cosines.shape[0]

    def least(self, start: int, stop: int) -> Tensor:
        """The least cosine that the lists of rows ``start`` to ``stop`` still take in: (stop − start,), −inf if any."""
        return self.cosines[start - self.start : stop - self.start, -1].contiguous()

    def _shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...], bool]]:
        given = isinstance(self.cosines, Tensor) and self.cosines.dim() == 2
        shape = tuple(self.cosines.shape) if given else (-1, -1)
        wide = given and self.cosines.dtype == torch.float64
        return {
            "counts": (torch.int64, (5,), False),
            "cosines": (torch.float64 if wide else torch.float32, shape, False),
            "indices": (torch.int64, shape, False),
        }

    @classmethod
    def empty(
        cls,
        dim: int,
        k: int,
        start: int = 0,
        stop: int = 0,
        device: torch.device | str = "cpu",
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """The state of rows start..stop that have met no candidate: the identity of ``merge``."""
        return cls(
            dim=dim,
            coverage=PairCoverage(),
            provenance=frozenset(),
            start=start,
            counts=filled((0, 0, 0, NO_ROW, NO_ROW), torch.int64, device),
            cosines=torch.full((stop - start, k), float("-inf"), dtype=dtype, device=device),
            indices=torch.full((stop - start, k), -1, dtype=torch.int64, device=device),
        )

    def merge(self, other: Self) -> Self:
        """The best of both for the rows from the first start to the last stop; refuses pairs that both have seen."""
        self._check_mergeable(other)
        if (other.k, other.cosines.dtype) != (self.k, self.cosines.dtype):
            raise StateMismatchError(
                f"states of {self.k} neighbours in {self.cosines.dtype} and {other.k} in {other.cosines.dtype} "
                "do not merge"
            )
        # An identity has no rows, and so no place.
        held = [s for s in (self, other) if s.stop > s.start] or [self]
        start, stop = min(s.start for s in held), max(s.stop for s in held)
        whole = self.empty(self.dim, self.k, start, stop, self.cosines.device, dtype=self.cosines.dtype)
        for state in held:
            rows = slice(state.start - start, state.stop - start)
            cosines, indices = state.cosines, state.indices
            if state is not held[0]:
                cosines, indices = _best(whole.cosines[rows], whole.indices[rows], cosines, indices)
            whole.cosines[rows], whole.indices[rows] = cosines, indices
        counts = torch.cat((self.counts[:3] + other.counts[:3], torch.minimum(self.counts[3:], other.counts[3:])))
        return replace(whole, **self._joined(other), counts=counts)


def sort_keys(cosines: Tensor, indices: Tensor) -> Tensor:
    """Integers in the order of (cosine, −index), for float32 cosines and indices below 2³² (below 0 is as 0)."""
    bits = (cosines + 0.0).view(torch.int32)  # 0 for −0
    ascending = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
    return ascending * 2**32 + (2**32 - 1 - indices.clamp(min=0))


def _best(cosines: Tensor, indices: Tensor, more: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    k = cosines.shape[1]
    cosines, indices = torch.cat((cosines, more), 1), torch.cat((indices, at), 1)
    # A question that a GPU would have to be waited for.
    if cosines.dtype == torch.float32 and cosines.is_cpu and indices.numel() and int(indices.max()) < 2**32:
        best = sort_keys(cosines, indices).topk(k, dim=1).indices
        return cosines.gather(1, best), indices.gather(1, best)
    # By index, then stably by cosine: among equals the smaller index stays first.
    indices, order = indices.sort(1)
    cosines, by_cosine = cosines.gather(1, order).sort(dim=1, descending=True, stable=True)
    return cosines[:, :k], indices.gather(1, by_cosine)[:, :k]
