"""The main job: read a model's hidden states over data, or vectors from where they are stored, and describe them."""

from fastaniso.progress import Progress
from fastaniso.scanning.attention.probe import AttentionProbe, probe_attention
from fastaniso.scanning.attention.result import AttentionResult, AttentionSite
from fastaniso.scanning.checkpoint import Checkpoint, MeasureInterrupted
from fastaniso.scanning.measure import measure
from fastaniso.scanning.measured import MeasureResult
from fastaniso.scanning.result import ScanResult, SiteResult, TokenCounts
from fastaniso.scanning.scan import scan
from fastaniso.scanning.stopped import ScanInterrupted, ScanInvalidRowsError, ScanStoppedError

__all__ = [
    "AttentionProbe",
    "AttentionResult",
    "AttentionSite",
    "Checkpoint",
    "MeasureInterrupted",
    "MeasureResult",
    "Progress",
    "ScanInterrupted",
    "ScanInvalidRowsError",
    "ScanResult",
    "ScanStoppedError",
    "SiteResult",
    "TokenCounts",
    "measure",
    "probe_attention",
    "scan",
]
