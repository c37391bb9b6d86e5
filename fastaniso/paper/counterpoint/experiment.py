"""Machina & Mercer's measurements as an experiment."""

from __future__ import annotations

from collections.abc import Sequence

from fastaniso.paper.counterpoint.claims import CLAIMS
from fastaniso.paper.counterpoint.judging import NEAR_COSINE, NEAR_ISOTROPY, has_learned, judge, norms
from fastaniso.paper.counterpoint.measuring import measure
from fastaniso.paper.counterpoint.pictures import draw
from fastaniso.paper.experiment import Experiment, Measured, Table


def setting(measured: Measured) -> str:
    """What was measured on what."""
    models = measured["models"]
    trained = sum(record["trained"] for record in models)
    data = "; ".join(dict.fromkeys(record["data"] for record in models)) or "nothing"
    return (
        f"{trained} trained models and {len(models) - trained} untrained ones ({measured['size']} size): their "
        f"embedding tables whole, without rows of zeros, and their states on some of {data}. I(W) is taken over both "
        "signs of each eigenvector of WᵀW; mean cosines are exact over all ordered pairs. Nearly isotropic is a mean "
        f"cosine of at most {NEAR_COSINE} and, of a table, an I(W) of at least {NEAR_ISOTROPY}. I(W) depends on the "
        "norms of the rows; of states it is that of unit rows. Verdicts leave out tables with fewer rows than "
        f"dimensions{_left_out(measured)}."
    )


def _left_out(measured: Measured) -> str:
    beginners = [record["name"] for record in measured["models"] if record["trained"] and not has_learned(record)]
    return f" and models that predict little better than a guess ({', '.join(beginners)})" if beginners else ""


def tables(measured: Measured) -> Sequence[Table]:
    """Embedding tables, final norms, and how well the language models predict."""
    models = measured["models"]
    embeddings = tuple(
        (
            *(record["name"], t["table"], f"{t['rows']:,} × {t['dim']}", t["norm"]),
            *(t["cosine"], t["centred_cosine"], t["isotropy"], t["centred_isotropy"]),
            *(t.get("one_sided"), t.get("centred_one_sided"), t.get("unit_isotropy")),
        )
        for record in models
        for t in record["tables"]
    )
    states = tuple(
        (
            *(name, record["read"], norm["before"], norm["after"]),
            *(norm.get("centred_before"), norm.get("centred_after")),
            *(norm.get("isotropy_before"), norm.get("isotropy_after")),
            *(norm["drift_before"], norm["drift_after"]),
        )
        for name, record, norm in norms(models)
    )
    losses = tuple(
        (record["name"], record["kind"], record["predicted"], record["loss"], record["chance"])
        for record in models
        if record["loss"] is not None
    )
    signs = "I(W), one sign"
    made = (
        Table(
            "Embedding tables, as they are and centred",
            (
                *("model", "table", "rows × dimensions", "mean norm", "mean cosine", "centred"),
                *("I(W)", "centred I(W)", signs, f"centred {signs}", "I(W) of unit rows"),
            ),
            embeddings,
        ),
        Table(
            "States before and after the final norm",
            (
                *("model", "of", "mean cosine before", "after", "centred before", "centred after"),
                *("I(W) before", "I(W) after", "‖mean‖ / mean norm before", "after"),
            ),
            states,
        ),
        Table(
            "Cross-entropy of the language models: that their weights are trained ones",
            ("model", "kind", "tokens predicted", "nats a token", "nats of a guess"),
            losses,
        ),
    )
    return [table for table in made if table.rows]


EXPERIMENT = Experiment(
    name="counterpoint",
    title="Embeddings and the final norm",
    question="Is anisotropy inherent, or the mean of a table and the doing of a norm?",
    claims=CLAIMS,
    measure=measure,
    setting=setting,
    judge=judge,
    tables=tables,
    draw=draw,
)
