"""A scan that ended early keeps what was measured until then."""

from __future__ import annotations

from fastaniso.scanning.result import ScanResult
from fastaniso.statistics.host import InvalidRowsError


class ScanInterrupted(KeyboardInterrupt):
    """Ctrl-C during a scan, after at least one batch; ``result`` holds what was measured until then."""

    def __init__(self, result: ScanResult) -> None:
        """Keep the result."""
        super().__init__()
        self.result = result


class ScanStoppedError(RuntimeError):
    """An error during a scan, after at least one batch; ``result`` holds what was measured until then."""

    def __init__(self, message: str, result: ScanResult) -> None:
        """Keep the result."""
        super().__init__(message)
        self.result = result


class ScanInvalidRowsError(ScanStoppedError, InvalidRowsError):
    """States that cannot be normalised, told at the end of a scan; ``result`` leaves them out, as "omit" does."""
