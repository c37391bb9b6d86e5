"""Reduce each hidden state as it passes: the model's hooks call ``Reader.receive``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fastaniso.distributed.exchange import gather_json
from fastaniso.models import Anatomy
from fastaniso.models.masks import Mask
from fastaniso.scanning.modalities import ModelBatch
from fastaniso.scanning.result import SiteResult
from fastaniso.scanning.site import SiteAccumulator


class Reader:
    """The states of all sites, and at each what was measured and what was left out for which reason."""

    def __init__(self, anatomy: Anatomy, source: str | None, *, gram: bool, backend: str, invalid: str) -> None:
        """Nothing read yet; the options are ``Accumulator``'s."""
        self._anatomy = anatomy
        self._source = source
        self._stacks = {site: stack for stack in anatomy.stacks for site in stack.sites}
        self._sites = {
            site: SiteAccumulator(gram=gram, backend=backend, invalid=invalid)
            for site in anatomy.sites
            if site not in anatomy.same_as
        }
        self._dropped: dict[str, Counter[str]] = {site: Counter() for site in self._sites}
        self._kept: Counter[str] = Counter()
        self.batches = self.items = 0

    def begin(self, batch: ModelBatch, first: int) -> None:
        """The batch whose states come next; ``first`` items of the data come before it."""
        self._batch = batch
        self._first = first
        self._masks: dict[Any, Mask] = {}
        self._placed: dict[Any, tuple[Tensor, Tensor]] = {}

    def receive(self, site: str, hidden: Tensor) -> None:
        """The state of one site: (items, positions, d), or feature maps (items, d, height, width)."""
        rows = _rows(hidden)
        shape = (rows.shape[0], rows.shape[1])
        stack = self._stacks[site]
        mask = self._masks.get((stack.prefix, shape))
        if mask is None:
            mask = self._masks[stack.prefix, shape] = self._batch.mask(stack, shape)
        # A model spread over devices has states on several: the small mask follows the state, never the reverse.
        place = (stack.prefix, shape, rows.device)
        if place not in self._placed:
            items = torch.arange(shape[0]).repeat_interleave(shape[1])
            self._placed[place] = mask.keep.to(rows.device), items.to(rows.device)
        self._sites[site].update(rows, *self._placed[place], first=self._first, source=self._source)
        self._dropped[site].update(mask.dropped)
        self._kept[site] += mask.kept

    def end(self) -> int:
        """Count the batch as read; measured positions of the first stack in it."""
        self.batches += 1
        self.items += self._batch.items
        first = self._anatomy.stacks[0].prefix
        return sum(mask.kept for (prefix, _), mask in self._masks.items() if prefix == first)

    def record(self) -> dict[str, Any]:
        """What was read beside the states: numbers and words, as ``add`` takes them."""
        within = {site: sums.within for site, sums in self._sites.items()}
        counts = {"kept": self._kept, "dropped": self._dropped}
        return {"batches": self.batches, "items": self.items, "within": within, **counts}

    def add(self, record: Mapping[str, Any], states: Callable[[str], Any]) -> None:
        """Also what a reader of the same sites and options had read: its record, and its states by name."""
        for site, sums in self._sites.items():
            sums.add(states(site), states(f"{site}.groups"), record["within"][site])
        self._count(record)

    def gather(self, device: torch.device, group: Any) -> None:
        """Become what all ranks of a process group have read, site by site; on every rank."""
        own = self.record()
        for site, sums in self._sites.items():
            sums.gather(self._stacks[site].dim, device, group)
        self.batches = self.items = 0
        self._kept, self._dropped = Counter(), {site: Counter() for site in self._sites}
        for record in gather_json(own, group):
            self._count(record)

    def cover(self, identity: str | None) -> None:
        """Say that all of the data was read, under one name, whatever names its parts were read under."""
        if identity is not None:
            for sums in self._sites.values():
                sums.cover(identity)

    def _count(self, record: Mapping[str, Any]) -> None:
        self.batches += int(record["batches"])
        self.items += int(record["items"])
        self._kept.update(record["kept"])
        for site, counts in record["dropped"].items():
            self._dropped[site].update(counts)

    @property
    def kept(self) -> int:
        """Measured positions at the first site."""
        return self._kept[self._anatomy.sites[0]]

    @property
    def dropped(self) -> dict[str, int]:
        """Positions left out at the first site, by reason."""
        return dict(self._dropped[self._anatomy.sites[0]])

    def results(self, *, partial: bool = False) -> tuple[SiteResult, ...]:
        """Every site's statistics; ``partial`` leaves out rows that cannot be normalised rather than lose the rest."""
        described = {site: sums.describe(self.items, partial=partial) for site, sums in self._sites.items()}
        same_as = self._anatomy.same_as
        return tuple(
            SiteResult(site, same_as.get(site), described[own], dict(self._dropped[own]))
            for site in self._anatomy.sites
            for own in [same_as.get(site, site)]
        )

    def states(self) -> dict[str, Any]:
        """The state of every site that is no other's, and after it that of its sequences in groups."""
        return {f"{site}{end}": state for site, sums in self._sites.items() for end, state in sums.states.items()}


def _rows(hidden: Tensor) -> Tensor:
    """The state as (items, positions, d), the numbers of a row side by side.

    Feature maps, and a state that a model left transposed (Whisper's embedding), are copied for that, one at a time.
    """
    if hidden.dim() == 4:
        hidden = hidden.flatten(2).transpose(1, 2)
    return hidden if hidden.stride(-1) == 1 else hidden.contiguous()
