"""Runs read back from where ``scan`` and ``measure`` wrote them: reported on, and compared."""

from fastaniso.runs.comparison import Change, Comparison, compare
from fastaniso.runs.reading import load_run
from fastaniso.runs.report import Report, load_report
from fastaniso.runs.run import Noise, Run, RunAttention, RunSite

__all__ = [
    "Change",
    "Comparison",
    "Noise",
    "Report",
    "Run",
    "RunAttention",
    "RunSite",
    "compare",
    "load_report",
    "load_run",
]
