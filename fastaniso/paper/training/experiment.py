"""The experiment: queries and keys, attention and hidden states over the steps of a training (§5)."""

from __future__ import annotations

from fastaniso.paper.experiment import Experiment
from fastaniso.paper.training.claims import CLAIMS
from fastaniso.paper.training.judging import judge
from fastaniso.paper.training.measuring import measure
from fastaniso.paper.training.pictures import draw
from fastaniso.paper.training.telling import setting, tables

EXPERIMENT = Experiment(
    name="training",
    title="Queries and keys while a model is trained",
    question=(
        "Where do the mean query and the mean key of each head go in training, and what happens meanwhile to attention "
        "and to the hidden states?"
    ),
    claims=CLAIMS,
    measure=measure,
    setting=setting,
    judge=judge,
    tables=tables,
    draw=draw,
)
