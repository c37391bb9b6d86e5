"""Figures 1 to 4 as an experiment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastaniso.paper.experiment import Experiment, Measured, Table
from fastaniso.paper.layers.claims import CLAIMS
from fastaniso.paper.layers.judging import ANISOTROPIC, judge
from fastaniso.paper.layers.pictures import draw
from fastaniso.paper.models.records import Record, all_trained, control, known, name_of, untrained
from fastaniso.paper.models.scans import measure


def setting(measured: Measured) -> str:
    """What was measured on what."""
    some = len(all_trained(measured))
    read: dict[str, dict[str, None]] = {}
    for record in measured["models"]:
        read.setdefault(record["kind"], {})[record["data"]] = None
    data = "; ".join(f"{kind}: {', '.join(some)}" for kind, some in read.items()) or "nothing"
    return (
        f"Trained models: {some}, beside each an untrained one of its configuration. Untrained models of families: "
        f"{len(untrained(measured))} ({measured['size']} size, one seed). They read {data}. Mean cosines are "
        "exact over all ordered pairs of positions; padding, special, class and distillation tokens are left out. "
        f"Anisotropic is what has a mean cosine above {ANISOTROPIC}. Untrained batch norms norm by their own batch."
    )


def tables(measured: Measured) -> Sequence[Table]:
    """Each model's course over the layers in a row; trained models first."""
    beside = [r for one in all_trained(measured) for r in (one, control(measured, one)) if r is not None]
    made = (
        ("Mean cosine of trained models, and untrained ones of their configuration", beside),
        ("Mean cosine of untrained models", untrained(measured)),
    )
    columns = ("model", "first layer", "least", "most", "at", "last", "last, within one", "last, across two", "of")
    return [Table(caption, columns, tuple(_rows(records))) for caption, records in made if records]


def _rows(records: Sequence[Record]) -> Iterator[tuple[str | float | None, ...]]:
    for record in records:
        for line in record["lines"]:
            values = known(line)
            at, most = max(values, key=lambda pair: pair[1])
            least = min(x for _, x in values)
            ends = (line["within"][-1], line["across"][-1])
            yield name_of(record, line), values[0][1], least, most, at, values[-1][1], *ends, record["read"]


EXPERIMENT = Experiment(
    name="layers",
    title="Layers of trained and untrained models",
    question="How close are the hidden states of a model to each other in angle, from its first layer to its last?",
    claims=CLAIMS,
    measure=measure,
    setting=setting,
    judge=judge,
    tables=tables,
    draw=draw,
)
