"""States of all processes of a training run, merged in the order of the ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.distributed as distributed

from fastaniso.state import Gram, Moments

States = dict[str, Moments | Gram]
_KINDS: dict[str, type[Moments] | type[Gram]] = {"Moments": Moments, "Gram": Gram}


def gathered(states: States, masked: Mapping[str, list[str]]) -> tuple[States, dict[str, list[str]]]:
    """The states and what masked them, over all ranks: the same on each, whatever sites it has seen itself."""
    if not (distributed.is_available() and distributed.is_initialized()):
        raise RuntimeError(
            "all_ranks: torch.distributed is not initialised in this process; leave it out, or call "
            "torch.distributed.init_process_group first"
        )
    own = {site: state.to("cpu").to_dict() for site, state in states.items()}, dict(masked)
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, own)
    merged: States = {}
    masks: dict[str, set[str]] = {}
    for contents, masks_of_rank in parts:
        for site, content in contents.items():
            state = _KINDS[content["kind"]].from_dict(content)
            merged[site] = merged[site].merge(state) if site in merged else state  # type: ignore[arg-type]
            masks.setdefault(site, set()).update(masks_of_rank[site])
    return merged, {site: sorted(names) for site, names in masks.items()}
