"""The experiments of "Anisotropy Is Inherent to Self-Attention in Transformers", each with one call or one command.

An experiment measures, and everything else follows from what it measured: findings (does the paper's claim hold here?),
tables and pictures are pure functions of its JSON. This room uses the public API only.
"""

from fastaniso.paper.claims import Claim, Finding, Verdict
from fastaniso.paper.experiment import Experiment, Picture, Table
from fastaniso.paper.options import Options, Size
from fastaniso.paper.outcome import Outcome, load_outcomes
from fastaniso.paper.running import experiments, run
from fastaniso.paper.telling import save_pictures, to_html, to_markdown

__all__ = [
    "Claim",
    "Experiment",
    "Finding",
    "Options",
    "Outcome",
    "Picture",
    "Size",
    "Table",
    "Verdict",
    "experiments",
    "load_outcomes",
    "run",
    "save_pictures",
    "to_html",
    "to_markdown",
]
