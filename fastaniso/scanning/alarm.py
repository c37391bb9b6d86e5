"""An error on one rank of a scan stops the others after the batch at hand, rather than at the end of their data."""

from __future__ import annotations

import time
import uuid
from typing import Any

import torch.distributed as dist

from fastaniso.distributed.exchange import RankError, gather_json

SECONDS = 1.0
"""Between two times that a rank looks whether another has failed."""


class Alarm:
    """Rung by a rank that has failed, heard by the others: through the store in which the ranks had met."""

    def __init__(self, group: Any) -> None:
        """The same one on every rank of the group; collective."""
        self._rank = dist.get_rank(group)
        self._key = f"fastaniso/alarm/{gather_json(uuid.uuid4().hex, group)[0]}"
        self._store: Any = dist.distributed_c10d._get_default_store()
        self._heard_at = time.monotonic()

    def ring(self, error: Exception) -> None:
        """Tell the others."""
        self._store.set(self._key, f"rank {self._rank}: {type(error).__name__}: {error}")

    def check(self) -> None:
        """``RankError`` if another rank has failed, a second after it at the latest and a batch."""
        if time.monotonic() - self._heard_at < SECONDS:
            return
        self._heard_at = time.monotonic()
        if self._store.check([self._key]):
            raise RankError(self._store.get(self._key).decode())
