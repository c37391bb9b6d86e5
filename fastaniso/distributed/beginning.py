"""What ranks agree on before they begin: one round of messages, in which a mistake on one rank raises on all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from fastaniso.distributed.exchange import shared
from fastaniso.distributed.ring import Ring, Shard
from fastaniso.ops import dispatch as ops
from fastaniso.result import Dropped
from fastaniso.rows import Rows, as_rows
from fastaniso.statistics.host import check_invalid_option, dropped_rows, to_host


@dataclass(frozen=True)
class Begun:
    """What all ranks know before the first pair: one round of messages has told it."""

    shard: Shard
    ring: Ring
    backend: str
    options: Any
    n: int
    dropped: Dropped


def begin(
    call: str,
    check: Callable[[], Any],
    hidden: Any,
    mask: Any,
    backend: str,
    invalid: str,
    group: dist.ProcessGroup | None,
) -> Begun:
    """Rows and options checked on every rank, and the rows of all counted; a mistake on one raises on all."""

    def own() -> tuple[tuple[Any, Rows, str], Any]:
        options = check()
        check_invalid_option(invalid)
        rows = viewed(hidden, mask)
        name = ops.resolve(backend, rows.device)
        (counts,) = to_host(ops.moments(rows, backend=name).counts)
        asked = {"call": call, "invalid": invalid, **options}
        return (options, rows, name), {**told_of(rows, asked), "counts": [int(count) for count in counts]}

    (options, rows, name), told = shared(own, group)
    shard, ring = sharded(rows, told, group)
    counts = np.array([each["counts"] for each in told])
    # The first row that cannot be normalised: each rank counts its own from 0.
    first = min((start + of[4] for start, of in zip(ring.starts, counts, strict=True) if of[2:4].any()), default=0)
    # The same counts on every rank, so that all raise or none.
    dropped = dropped_rows(np.array([*counts[:, :4].sum(0), first]), invalid)
    return Begun(shard, ring, name, options, int(counts[:, 0].sum()), dropped)


def viewed(hidden: Any, mask: Any) -> Rows:
    """A rank's rows, which have one stride, so that they can be sent."""
    rows = as_rows(hidden, mask)
    if rows.values.shape[0] != 1:
        raise ValueError(f"hidden: expected rows [n, d] at one stride, got shape {tuple(rows.values.shape)}")
    return rows


def told_of(rows: Rows, asked: dict[str, Any]) -> dict[str, Any]:
    """What a rank tells the others of its rows and of what it was asked for."""
    return {"rows": rows.count, "dim": rows.dim, "dtype": str(rows.dtype), "asked": asked}


def sharded(rows: Rows, told: list[Any], group: dist.ProcessGroup | None) -> tuple[Shard, Ring]:
    """The rank's rows behind those of the ranks before it; all ranks have rows of one kind and one wish, or raise."""
    first = told[0]
    for rank, other in enumerate(told):
        if (other["dim"], other["dtype"]) != (first["dim"], first["dtype"]):
            raise ValueError(
                f"hidden: rank 0 has rows of {first['dim']} numbers in {first['dtype']}, rank {rank} of {other['dim']} "
                f"in {other['dtype']}; all ranks need rows of one kind"
            )
        for name, value in first["asked"].items():
            if (got := other["asked"].get(name)) != value:
                raise ValueError(f"{name}: rank 0 has {value!r}, rank {rank} {got!r}; all ranks need the same")
    ring = Ring([each["rows"] for each in told], group)
    values = rows.values[0].contiguous()
    kept = torch.ones(rows.count, dtype=torch.bool, device=values.device) if rows.mask is None else rows.mask[0]
    return Shard(values, kept, ring.starts[ring.rank]), ring
