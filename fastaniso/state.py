"""The states that kernels make and statistics read: frozen, mergeable, on the device they were made on.

A state holds sums only, so ``merge`` is addition and the order of the parts does not matter (up to the
last bits of float64). Nothing here synchronises with a device: counts stay tensors until a statistic asks.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

FORMAT_VERSION = 1
NO_ROW = 2**63 - 1
"""Value of ``first_invalid`` when every row could be normalised: the identity of ``min``."""


class StateMismatchError(ValueError):
    """Two states cannot be merged: different dimension or contents, or rows counted twice."""


class CorruptStateError(ValueError):
    """A stored state is damaged, truncated, or of another kind or version."""


@dataclass(frozen=True)
class Coverage:
    """Which rows of which sources a state has seen: sorted, disjoint, half-open ranges by source name."""

    ranges: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, source: str, start: int, stop: int) -> Self:
        """Rows ``start`` to ``stop`` (half-open) of ``source``."""
        return cls({source: ((start, stop),)} if stop > start else {})

    def union(self, other: Coverage) -> Coverage:
        """Both coverages together; raises ``StateMismatchError`` where they overlap."""
        if not other.ranges:
            return self
        if not self.ranges:
            return other
        merged = dict(self.ranges)
        for source, ranges in other.ranges.items():
            merged[source] = _join(source, (*merged.get(source, ()), *ranges))
        return Coverage(merged)


def _join(source: str, ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start < joined[-1][1]:
            raise StateMismatchError(
                f"rows {start} to {min(stop, joined[-1][1])} of {source!r} are in both states: "
                "merging would count them twice; merge states of disjoint rows"
            )
        if joined and start == joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)


@dataclass(frozen=True, eq=False)
class _State:
    """What all states share: the tensors' names, what they were made from, and storage as a dict.

    ``provenance`` names each dtype and backend that rows came through, such as ``"bfloat16 rows, cpu kernel"``.
    """

    dim: int
    coverage: Coverage
    provenance: frozenset[str]

    _tensors: ClassVar[tuple[str, ...]] = ()

    @property
    def kind(self) -> str:
        """The name of the class, as stored."""
        return type(self).__name__

    def _check_mergeable(self, other: object) -> None:
        if type(other) is not type(self):
            raise StateMismatchError(f"a {self.kind} merges with a {self.kind}, not with {type(other).__name__}")
        assert isinstance(other, _State)
        if other.dim != self.dim:
            raise StateMismatchError(f"states of dimension {self.dim} and {other.dim} do not merge")

    def _joined(self, other: Self) -> dict[str, Any]:
        return {"coverage": self.coverage.union(other.coverage), "provenance": self.provenance | other.provenance}

    def to(self, device: torch.device | str) -> Self:
        """The same state on another device (an explicit move: nothing else ever moves a state)."""
        moved: dict[str, Any] = {n: t.to(device) for n in self._tensors if isinstance(t := getattr(self, n), Tensor)}
        return replace(self, **moved)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict of tensors, strings and numbers; ``from_dict`` gives the state back."""
        tensors = {n: t for n in self._tensors if (t := getattr(self, n)) is not None}
        return {
            "kind": self.kind,
            "version": FORMAT_VERSION,
            "dim": self.dim,
            "provenance": sorted(self.provenance),
            "coverage": {s: [list(r) for r in ranges] for s, ranges in self.coverage.ranges.items()},
            **tensors,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The state that ``to_dict`` wrote; raises ``CorruptStateError`` on anything else."""
        if content.get("kind") != cls.__name__:
            raise CorruptStateError(f"expected a stored {cls.__name__}, got {content.get('kind')!r}")
        if content.get("version") != FORMAT_VERSION:
            raise CorruptStateError(f"format version {content.get('version')!r}; this fastaniso reads {FORMAT_VERSION}")
        try:
            state = cls(
                dim=int(content["dim"]),
                coverage=Coverage({s: tuple((int(a), int(b)) for a, b in rs) for s, rs in content["coverage"].items()}),
                provenance=frozenset(content["provenance"]),
                **{n: content.get(n) for n in cls._tensors},
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CorruptStateError(f"incomplete {cls.__name__}: {error!r}") from error
        state._check_shapes()
        return state

    def _shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...], bool]]:
        """Name → (dtype, shape, may be absent) of every tensor."""
        raise NotImplementedError

    def _check_shapes(self) -> None:
        for name, (dtype, shape, optional) in self._shapes().items():
            tensor = getattr(self, name)
            if tensor is None and optional:
                continue
            if not isinstance(tensor, Tensor) or tensor.dtype != dtype or tuple(tensor.shape) != shape:
                got = f"{tensor.dtype}{tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
                raise CorruptStateError(f"{self.kind}.{name}: expected {dtype}{shape}, got {got}")


@dataclass(frozen=True, eq=False)
class Moments(_State):
    """First and second moments of rows x and of unit rows u = x/‖x‖, one linear pass.

    ``counts``  int64 (5,): rows kept; rows dropped as masked, zero, non-finite; index of the first row that could
    not be normalised (``NO_ROW`` if none).
    ``totals``  float64 (6,): Σ‖x‖, Σ‖x‖², min ‖x‖, max ‖x‖, Σ‖u‖², Σ‖u‖⁴.
    ``sums``    float64 (4, d): Σx, Σx² , Σu, Σu², per dimension.
    """

    counts: Tensor
    totals: Tensor
    sums: Tensor

    _tensors = ("counts", "totals", "sums")

    def _shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...], bool]]:
        return {
            "counts": (torch.int64, (5,), False),
            "totals": (torch.float64, (6,), False),
            "sums": (torch.float64, (4, self.dim), False),
        }

    @classmethod
    def empty(cls, dim: int, device: torch.device | str = "cpu") -> Self:
        """The state of no rows: the identity of ``merge``."""
        inf = float("inf")
        return cls(
            dim=dim,
            coverage=Coverage(),
            provenance=frozenset(),
            counts=torch.tensor([0, 0, 0, 0, NO_ROW], dtype=torch.int64, device=device),
            totals=torch.tensor([0.0, 0.0, inf, -inf, 0.0, 0.0], dtype=torch.float64, device=device),
            sums=torch.zeros(4, dim, dtype=torch.float64, device=device),
        )

    def merge(self, other: Self) -> Self:
        """The state of both sets of rows; refuses another dimension and rows that both have seen."""
        self._check_mergeable(other)
        a, b = self.totals, other.totals
        return replace(
            self,
            **self._joined(other),
            counts=torch.cat((self.counts[:4] + other.counts[:4], torch.minimum(self.counts[4:], other.counts[4:]))),
            totals=torch.cat(
                (a[:2] + b[:2], torch.minimum(a[2:3], b[2:3]), torch.maximum(a[3:4], b[3:4]), a[4:] + b[4:])
            ),
            sums=self.sums + other.sums,
        )

    @property
    def kept(self) -> Tensor:
        """Rows counted, a scalar on the device."""
        return self.counts[0]

    @property
    def sum(self) -> Tensor:
        """Σx (d,)."""
        return self.sums[0]

    @property
    def sum_squared(self) -> Tensor:
        """Σx² by dimension (d,)."""
        return self.sums[1]

    @property
    def unit_sum(self) -> Tensor:
        """Σu (d,)."""
        return self.sums[2]

    @property
    def unit_sum_squared(self) -> Tensor:
        """Σu² by dimension (d,)."""
        return self.sums[3]


@dataclass(frozen=True, eq=False)
class Gram(_State):
    """Moments and the central scatter of the rows and/or of the unit rows, one O(n d²) pass.

    ``scatter``       float64 (d, d): Σ(x − x̄)(x − x̄)ᵀ, or None when not asked for.
    ``unit_scatter``  float64 (d, d): Σ(u − ū)(u − ū)ᵀ, or None when not asked for.

    Central, because Σxxᵀ − n·x̄x̄ᵀ loses what a mean far from zero leaves; merging is Chan's formula, and
    Σuuᵀ = unit_scatter + n·ūūᵀ comes back without loss.
    """

    counts: Tensor
    totals: Tensor
    sums: Tensor
    scatter: Tensor | None
    unit_scatter: Tensor | None

    _tensors = ("counts", "totals", "sums", "scatter", "unit_scatter")

    def _shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...], bool]]:
        square = (torch.float64, (self.dim, self.dim), True)
        return {**self.moments._shapes(), "scatter": square, "unit_scatter": square}

    @classmethod
    def empty(cls, dim: int, device: torch.device | str = "cpu", *, raw: bool = True, unit: bool = True) -> Self:
        """The state of no rows, with the scatters asked for: the identity of ``merge``."""

        def square(wanted: bool) -> Tensor | None:
            return torch.zeros(dim, dim, dtype=torch.float64, device=device) if wanted else None

        return cls.of(Moments.empty(dim, device), square(raw), square(unit))

    @classmethod
    def of(cls, moments: Moments, scatter: Tensor | None, unit_scatter: Tensor | None) -> Self:
        """A Gram from its parts."""
        return cls(
            dim=moments.dim,
            coverage=moments.coverage,
            provenance=moments.provenance,
            counts=moments.counts,
            totals=moments.totals,
            sums=moments.sums,
            scatter=scatter,
            unit_scatter=unit_scatter,
        )

    @property
    def moments(self) -> Moments:
        """The linear part."""
        return Moments(self.dim, self.coverage, self.provenance, self.counts, self.totals, self.sums)

    def merge(self, other: Self) -> Self:
        """The state of both sets of rows; refuses another dimension, other contents, and rows that both have seen."""
        self._check_mergeable(other)
        ours, theirs = ([n for n in ("scatter", "unit_scatter") if getattr(s, n) is not None] for s in (self, other))
        if ours != theirs:
            raise StateMismatchError(f"one Gram holds {ours or 'no scatter'}, the other {theirs or 'no scatter'}")
        moments = self.moments.merge(other.moments)
        return type(self).of(
            moments,
            _merge_scatter(self.scatter, other.scatter, self.sums[0], other.sums[0], self.kept, other.kept),
            _merge_scatter(self.unit_scatter, other.unit_scatter, self.sums[2], other.sums[2], self.kept, other.kept),
        )

    @property
    def kept(self) -> Tensor:
        """Rows counted, a scalar on the device."""
        return self.counts[0]


def _merge_scatter(
    a: Tensor | None, b: Tensor | None, sum_a: Tensor, sum_b: Tensor, kept_a: Tensor, kept_b: Tensor
) -> Tensor | None:
    """Chan, Golub & LeVeque (1979): S = S_a + S_b + δδᵀ·n_a·n_b/n with δ the difference of the means."""
    if a is None or b is None:
        return None
    n_a, n_b = kept_a.clamp(min=1), kept_b.clamp(min=1)
    delta = sum_a / n_a - sum_b / n_b
    weight = kept_a.double() * kept_b / (kept_a + kept_b).clamp(min=1)
    return (a + b).addr_(delta * weight, delta)


@dataclass(frozen=True, eq=False)
class GroupMoments(_State):
    """Sums of unit rows by group, one linear pass: what within- and between-group cosines need.

    ``counts``        int64 (G,): rows kept in each group.
    ``unit_sum``      float64 (G, d): Σu of each group.
    ``unit_squared``  float64 (G,): Σ‖u‖² of each group.
    ``dropped``       int64 (5,): rows dropped as masked, zero, non-finite, of a group outside 0..G−1; index of the
    first row that could not be normalised (``NO_ROW`` if none).
    """

    counts: Tensor
    unit_sum: Tensor
    unit_squared: Tensor
    dropped: Tensor

    _tensors = ("counts", "unit_sum", "unit_squared", "dropped")

    @property
    def groups(self) -> int:
        """Number of groups G."""
        return self.counts.shape[0]

    def _shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...], bool]]:
        groups = self.counts.shape[0] if isinstance(self.counts, Tensor) and self.counts.dim() == 1 else -1
        return {
            "counts": (torch.int64, (groups,), False),
            "unit_sum": (torch.float64, (groups, self.dim), False),
            "unit_squared": (torch.float64, (groups,), False),
            "dropped": (torch.int64, (5,), False),
        }

    @classmethod
    def empty(cls, dim: int, groups: int, device: torch.device | str = "cpu") -> Self:
        """The state of no rows: the identity of ``merge``."""
        return cls(
            dim=dim,
            coverage=Coverage(),
            provenance=frozenset(),
            counts=torch.zeros(groups, dtype=torch.int64, device=device),
            unit_sum=torch.zeros(groups, dim, dtype=torch.float64, device=device),
            unit_squared=torch.zeros(groups, dtype=torch.float64, device=device),
            dropped=torch.tensor([0, 0, 0, 0, NO_ROW], dtype=torch.int64, device=device),
        )

    def merge(self, other: Self) -> Self:
        """The state of both sets of rows; refuses another dimension or number of groups, and rows both have seen."""
        self._check_mergeable(other)
        if other.groups != self.groups:
            raise StateMismatchError(f"states of {self.groups} and {other.groups} groups do not merge")
        return replace(
            self,
            **self._joined(other),
            counts=self.counts + other.counts,
            unit_sum=self.unit_sum + other.unit_sum,
            unit_squared=self.unit_squared + other.unit_squared,
            dropped=torch.cat(
                (self.dropped[:4] + other.dropped[:4], torch.minimum(self.dropped[4:], other.dropped[4:]))
            ),
        )


State = Moments | Gram | GroupMoments
_KINDS: dict[str, type[State]] = {"Moments": Moments, "Gram": Gram, "GroupMoments": GroupMoments}


def save_state(state: State, path: str | os.PathLike[str]) -> None:
    """Write a state as safetensors with a checksum, by atomic rename: a reader sees all of it or nothing."""
    from safetensors.torch import save

    content = state.to_dict()
    tensors = {n: t.detach().cpu().contiguous() for n, t in content.items() if isinstance(t, Tensor)}
    header = {n: v for n, v in content.items() if not isinstance(v, Tensor)}
    metadata = {"fastaniso": json.dumps(header, sort_keys=True)}
    metadata["sha256"] = _checksum(metadata["fastaniso"], tensors)
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save(tensors, metadata))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_state(path: str | os.PathLike[str]) -> State:
    """Read a state that ``save_state`` wrote; raises ``CorruptStateError`` if it is damaged or something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise CorruptStateError(f"{path}: not a readable safetensors file ({error})") from error
    if "fastaniso" not in metadata:
        raise CorruptStateError(f"{path}: a safetensors file, but not a fastaniso state")
    if metadata.get("sha256") != _checksum(metadata["fastaniso"], tensors):
        raise CorruptStateError(f"{path}: checksum does not match its contents: the file is damaged")
    header = json.loads(metadata["fastaniso"])
    kind = _KINDS.get(header.get("kind"))
    if kind is None:
        raise CorruptStateError(f"{path}: unknown kind of state {header.get('kind')!r}")
    return kind.from_dict({**header, **tensors})


def _checksum(header: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
