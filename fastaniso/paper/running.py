"""Experiments by their names, and a run of one."""

from __future__ import annotations

import time
from importlib import import_module

from fastaniso.paper.experiment import Experiment
from fastaniso.paper.options import Options
from fastaniso.paper.outcome import Outcome, made_with

NAMES = ("layers", "drift", "untrained-block", "training", "counterpoint")


def experiments(*names: str) -> tuple[Experiment, ...]:
    """The experiments of these names, by default all, in the paper's order."""
    unknown = set(names) - set(NAMES)
    if unknown:
        raise ValueError(f"experiment: expected one of {', '.join(NAMES)}, got {', '.join(sorted(unknown))}")
    chosen = [name for name in NAMES if not names or name in names]
    return tuple(import_module(f"fastaniso.paper.{name.replace('-', '_')}").EXPERIMENT for name in chosen)


def run(experiment: Experiment, options: Options) -> Outcome:
    """Measure, and write what was measured under ``options.out``."""
    began = time.perf_counter()
    measured = experiment.measure(options)
    outcome = Outcome(
        experiment, measured, options.size.value, round(time.perf_counter() - began, 1), made_with(options)
    )
    outcome.save(options.out)
    return outcome
