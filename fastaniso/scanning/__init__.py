"""The main job: read a model's hidden states over a text, or vectors from files, and describe them."""

from fastaniso.scanning.measure import measure
from fastaniso.scanning.progress import Progress
from fastaniso.scanning.result import MeasureResult, ScanResult, SiteResult, TokenCounts
from fastaniso.scanning.scan import scan

__all__ = ["MeasureResult", "Progress", "ScanResult", "SiteResult", "TokenCounts", "measure", "scan"]
