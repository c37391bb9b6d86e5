"""What a measurement of stored rows will hold, before it begins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from fastaniso.planning.plan import plan
from fastaniso.sources import Source


def check_memory(
    memory_limit: int | str | None,
    source: Source,
    *,
    gram: bool | str,
    bins: int | None,
    neighbors: int | None,
    backend: str,
    device: torch.device,
    block_rows: int,
    tile_rows: int,
) -> None:
    """Raise ``MemoryError`` if states, kernels and the blocks that are held at once take more than the limit.

    Mapped blocks count in full, though the system could take their pages back; of rows elsewhere the block that is read
    meanwhile counts, too. ``bins`` and ``neighbors`` are None
    where those passes are not asked for.
    """
    if memory_limit is None:
        return
    form: dict[str, Any] = {"dtype": source.dtype, "backend": backend, "device": device}
    row_bytes = source.dim * source.dtype.itemsize
    count = None if source.is_stream else source.count
    block, tile = (max(min(rows, rows if count is None else count), 1) for rows in (block_rows, tile_rows))
    ahead = int(source.is_remote)
    linear = plan(block, source.dim, gram=gram, accumulate=True, **form)
    states, working = linear.state_bytes, linear.working_bytes + (1 + ahead) * block * row_bytes
    if bins is not None:
        visit = plan(tile, source.dim, other=tile, pairs=True, bins=bins, **form)
        states += visit.state_bytes
        working = max(working, visit.working_bytes + (2 + ahead) * tile * row_bytes)
    if neighbors is not None:
        search = plan(tile, source.dim, other=tile, neighbors=neighbors, **form)
        found = search.state_bytes // tile * source.count
        states += found
        # The state after a tile is another than that before: an interruption between them leaves a whole one.
        working = max(working, search.working_bytes + found + (2 + ahead) * tile * row_bytes)
    replace(linear, state_bytes=states, working_bytes=working).check(memory_limit)
