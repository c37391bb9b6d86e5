"""What ranks of a scan hear of each other while each reads its own share, through the store in which they had met."""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from typing import Any

import torch.distributed as dist

from fastaniso.distributed.exchange import RankError, gather_json

SECONDS = 1.0
"""Between two times that a rank looks whether another has failed, and shows that it is alive."""

QUIET = 60.0
"""Seconds without a sign of life after which a rank is not waited for in here."""

_DONE = b"done"


class Alarm:
    """Rung by a rank that leaves early; the others hear it after the batch at hand, not at the end of their data."""

    def __init__(self, group: Any) -> None:
        """The same one on every rank of the group; collective."""
        self._rank, self._size = dist.get_rank(group), dist.get_world_size(group)
        self._name = f"fastaniso/alarm/{gather_json(uuid.uuid4().hex, group)[0]}"
        # There is no other way to a store that every group has.
        self._store: Any = dist.distributed_c10d._get_default_store()
        self._looked_at = time.monotonic()

    def ring(self, error: BaseException) -> None:
        """Tell the others."""
        with suppress(RuntimeError):  # who keeps the store may have left before
            self._store.set(self._name, f"rank {self._rank}: {type(error).__name__}: {error}")

    def check(self) -> None:
        """``RankError`` if another rank has failed; looks once a second."""
        if time.monotonic() - self._looked_at >= SECONDS:
            self._looked_at = time.monotonic()
            self._show(str(self._looked_at).encode())
            self._listen()

    def wait(self) -> None:
        """Until all ranks are done, however long it takes; ``RankError`` if one fails.

        What ranks do together has a time limit, which the slowest one of a long scan may well exceed. A rank that gives
        no sign of life is left to that limit, or to its connection, which shows at once that it is gone.
        """
        self._show(_DONE)
        signs: dict[int, tuple[bytes, float]] = {}
        pause = 0.01
        while True:
            self._listen()
            for rank in range(self._size):
                place = f"{self._name}/{rank}"
                sign = self._store.get(place) if self._store.check([place]) else b""
                if rank not in signs or signs[rank][0] != sign:
                    signs[rank] = sign, time.monotonic()
            waited = [time.monotonic() - since for sign, since in signs.values() if sign != _DONE]
            if not waited or max(waited) > QUIET:
                return
            time.sleep(pause)
            pause = min(2 * pause, SECONDS)

    def _show(self, sign: bytes) -> None:
        self._store.set(f"{self._name}/{self._rank}", sign)

    def _listen(self) -> None:
        if self._store.check([self._name]):
            raise RankError(self._store.get(self._name).decode())
