"""What is kept of queries and keys beside their means: second moments by head, and a few of the vectors themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class _Layer:
    """Sums over kept positions in float64, queries and keys by head, and vectors at the positions that were picked."""

    second: Tensor
    sums: tuple[Tensor, Tensor]
    points: list[tuple[Tensor, Tensor]]


class Vectors:
    """Told every attention of the passes over one probe set, batch after batch, as ``probe_attention(each=)`` does.

    ``keep`` (sequences, positions) says which positions count; ``points`` of these are picked, by a seed, the same for
    every model that reads the set.
    """

    def __init__(self, keep: Tensor, points: int) -> None:
        """Nothing seen yet."""
        counted = keep.flatten().nonzero().flatten()
        order = torch.randperm(len(counted), generator=torch.Generator().manual_seed(0))
        self._picked = torch.zeros_like(keep)
        self._picked.view(-1)[counted[order[:points]].sort().values] = True
        self._keep = keep
        self._layers: list[_Layer] = []
        self._calls = 0
        self._rows = slice(0, 0)

    def begin(self, rows: slice) -> None:
        """The next pass is over these sequences."""
        self._rows, self._calls = rows, 0

    def __call__(self, path: str, queries: Tensor, keys: Tensor) -> None:
        """The queries (B, H, T, d) and keys (B, G, T, d) of one attention; layers are told by the order of calls."""
        keep, picked = (mask[self._rows].to(queries.device) for mask in (self._keep, self._picked))
        rows = [vectors.transpose(1, 2) for vectors in (queries, keys)]
        counted = [vectors[keep].double() for vectors in rows]
        second = torch.einsum("nhd,nhe->hde", counted[0], counted[0])
        sums = counted[0].sum(0), counted[1].sum(0)
        points = rows[0][picked].float().cpu(), rows[1][picked].float().cpu()
        if self._calls == len(self._layers):
            self._layers.append(_Layer(second, sums, [points]))
        else:
            layer = self._layers[self._calls]
            layer.second += second
            layer.sums = layer.sums[0] + sums[0], layer.sums[1] + sums[1]
            layer.points.append(points)
        self._calls += 1

    def on_first_direction(self, layer: int) -> tuple[list[float], list[float]]:
        """E⟨Q, v⟩ and E⟨K, v⟩ of each head of queries, v the first right singular vector of its queries.

        The sign of v is that in which the first is not negative; head h reads keys h // (H / G).
        """
        kept = self._layers[layer]
        first = torch.linalg.eigh(kept.second).eigenvectors[..., -1]
        count = int(self._keep.sum())
        queries, keys = (sums / count for sums in kept.sums)
        on_queries = (queries * first).sum(1)
        on_keys = (keys.repeat_interleave(len(queries) // len(keys), 0) * first).sum(1)
        on_keys = torch.where(on_queries < 0, -on_keys, on_keys)
        return on_queries.abs().tolist(), on_keys.tolist()

    def points(self, layer: int) -> tuple[Tensor, Tensor]:
        """The vectors that were picked: queries (points, H, d) and keys (points, G, d), on the host."""
        queries, keys = zip(*self._layers[layer].points, strict=True)
        return torch.cat(queries), torch.cat(keys)


def projected(points: Sequence[tuple[Tensor, Tensor]]) -> tuple[list[tuple[Tensor, Tensor]], float]:
    """Queries and keys of one head on the first two right singular vectors of their union over all steps.

    Each step's (points, d) become (points, 2), all on the same axes, which are not centred: the origin stays. The sign
    of an axis is that in which queries of the last step lie on its positive side. Also the share of Σσ² on the two.
    """
    union = torch.cat([part for pair in points for part in pair]).double()
    _, values, directions = torch.linalg.svd(union, full_matrices=False)
    axes = directions[:2].T
    axes = axes * torch.where((points[-1][0].double() @ axes).mean(0) < 0, -1.0, 1.0)
    share = float(values[:2].square().sum() / values.square().sum())
    return [(queries.double() @ axes, keys.double() @ axes) for queries, keys in points], share
