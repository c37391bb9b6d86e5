"""Figure 5 as an experiment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastaniso.paper.drift.claims import CLAIMS
from fastaniso.paper.drift.judging import FEWEST, SIGNIFICANT, judge, layer_pairs, pearson
from fastaniso.paper.drift.pictures import draw
from fastaniso.paper.experiment import Experiment, Measured, Table
from fastaniso.paper.models.records import Record, all_trained, control, name_of, untrained
from fastaniso.paper.models.scans import measure


def setting(measured: Measured) -> str:
    """What was measured on what."""
    return (
        f"The scans of the experiment layers ({measured['size']} size). Trained models: {len(all_trained(measured))}, "
        f"beside each an untrained one of its configuration. Untrained models of families: {len(untrained(measured))}. "
        "Over embedding and blocks, ‖mean‖ of the states (their drift) is set against their mean cosine: Spearman's ρ, "
        "its two-sided p (exact over all orders up to 9 layers, else Student's t), and Pearson's r. They rise "
        f"together if ρ > 0 and p < {SIGNIFICANT}; of fewer than {FEWEST} layers nothing is said. Layers of a model "
        "are no independent draws: p says how rare so monotone a relation of exchangeable ones would be, no more."
    )


def tables(measured: Measured) -> Sequence[Table]:
    """Correlations by model; trained models first."""
    beside = [r for one in all_trained(measured) for r in (one, control(measured, one)) if r is not None]
    made = (
        (
            "Drift and mean cosine over the layers of trained models, and of untrained ones of their configuration",
            beside,
        ),
        ("Drift and mean cosine over the layers of untrained models", untrained(measured)),
    )
    columns = ("model", "layers", "Spearman ρ", "p", "Pearson r", "Pearson r of the share", "‖mean‖ from", "to")
    return [Table(caption, columns, tuple(_rows(records))) for caption, records in made if records]


def _rows(records: Sequence[Record]) -> Iterator[tuple[str | float | int | None, ...]]:
    for record in records:
        for line in record["lines"]:
            found, drifts = line["correlation"], [x for x, _ in layer_pairs(line)]
            r = (pearson(line), pearson(line, "relative_drift"))
            ends = (drifts[0], drifts[-1]) if drifts else (None, None)
            yield name_of(record, line), found["n"], found["rho"], found["p"], *r, *ends


EXPERIMENT = Experiment(
    name="drift",
    title="Drift and anisotropy",
    question="Are hidden states close in angle because their mean has moved away from the origin?",
    claims=CLAIMS,
    measure=measure,
    setting=setting,
    judge=judge,
    tables=tables,
    draw=draw,
)
