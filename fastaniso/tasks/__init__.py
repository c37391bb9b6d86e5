"""A measurement cut into tiles that any number of processes do, in any order, and that files bring together."""

from fastaniso.tasks.folding import Folded, Incomplete, fold
from fastaniso.tasks.manifest import Manifest, ManifestError
from fastaniso.tasks.planning import plan_tasks
from fastaniso.tasks.ranks import measure_on_ranks
from fastaniso.tasks.running import run_task

__all__ = ["Folded", "Incomplete", "Manifest", "ManifestError", "fold", "measure_on_ranks", "plan_tasks", "run_task"]
