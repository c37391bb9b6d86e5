"""The project's targets, each with what was measured for it and a verdict."""

from bench.targets.gpu import GPU
from bench.targets.target import Target, Verdict
from bench.targets.verdicts import judge, judge_gpu, show_verdicts

__all__ = ["GPU", "Target", "Verdict", "judge", "judge_gpu", "show_verdicts"]
