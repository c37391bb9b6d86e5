"""SIGTERM, which schedulers send some seconds before they kill: a scan ends after the batch at hand, which is kept."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastaniso.progress import Progress, Report

TERMINATED = 143


@contextmanager
def terminated_after_a_batch(report: Report) -> Iterator[Report]:
    """``report``, with which the process ends after the batch in which SIGTERM came; before the first one, at once.

    A second SIGTERM does not wait for the batch. Where another rank has ended of it, an error is no more than that.
    """
    begun = asked = False

    def terminated(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked or not begun:
            raise SystemExit(TERMINATED)
        asked = True

    def told(progress: Progress) -> None:
        nonlocal begun
        report(progress)
        begun = True
        if asked:
            raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield told
    except Exception as error:
        if not asked:
            raise
        raise SystemExit(TERMINATED) from error
    finally:
        signal.signal(signal.SIGTERM, before)
        if asked:
            print("fastaniso: terminated; with --out what was measured is kept", file=sys.stderr)
