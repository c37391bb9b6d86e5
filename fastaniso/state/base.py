"""What all states share: the tensors' names, what they were made from, and storage as a dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from fastaniso.state.coverage import Coverage, PairCoverage
from fastaniso.state.errors import CorruptStateError, StateMismatchError

FORMAT_VERSION = 1
NO_ROW = 2**63 - 1
"""Value of ``first_invalid`` when every row could be normalised: the identity of ``min``."""


def filled(values: Sequence[float], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """``values`` on a device, written there: ``torch.tensor`` copies them from the host, for which a GPU is waited."""
    tensor = torch.zeros(len(values), dtype=dtype, device=device)
    for place, value in enumerate(values):
        if value:
            tensor[place : place + 1].fill_(value)
    return tensor


@dataclass(frozen=True, eq=False)
class State:
    """What all states share: the tensors' names, what they were made from, and storage as a dict.

    ``provenance`` names each dtype and backend that rows came through, such as ``"bfloat16 rows, cpu kernel"``.
    """

    dim: int
    coverage: Coverage | PairCoverage
    provenance: frozenset[str]

    _tensors: ClassVar[tuple[str, ...]] = ()
    # What a state holds beside its tensors, and how to read it back; and which of that must agree to merge.
    _settings: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    _must_agree: ClassVar[tuple[str, ...]] = ()
    _coverage: ClassVar[type[Coverage] | type[PairCoverage]] = Coverage

    @property
    def kind(self) -> str:
        """The name of the class, as stored."""
        return type(self).__name__

    def _check_mergeable(self, other: object) -> None:
        if type(other) is not type(self):
            raise StateMismatchError(f"a {self.kind} merges with a {self.kind}, not with {type(other).__name__}")
        assert isinstance(other, State)
        if other.dim != self.dim:
            raise StateMismatchError(f"states of dimension {self.dim} and {other.dim} do not merge")
        for name in self._must_agree:
            if getattr(other, name) != getattr(self, name):
                raise StateMismatchError(
                    f"states of {name} {getattr(self, name)} and {getattr(other, name)} do not merge"
                )

    def _joined(self, other: Self) -> dict[str, Any]:
        coverage = self.coverage.union(other.coverage)  # type: ignore[arg-type]  # of one kind, as the states are
        return {"coverage": coverage, "provenance": self.provenance | other.provenance}

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
            "coverage": self.coverage.to_plain(),
            **{name: getattr(self, name) for name in self._settings},
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
                coverage=cls._coverage.from_plain(content["coverage"]),
                provenance=frozenset(content["provenance"]),
                **{name: read(content[name]) for name, read in cls._settings.items()},
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
