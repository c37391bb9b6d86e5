"""The experiment: what it asks, how it was done, and its parts."""

from __future__ import annotations

from fastaniso.paper.experiment import Experiment, Measured
from fastaniso.paper.untrained_block.claims import CLAIMS
from fastaniso.paper.untrained_block.drawing import draw
from fastaniso.paper.untrained_block.judging import judge
from fastaniso.paper.untrained_block.measuring import measure
from fastaniso.paper.untrained_block.tables import tables


def setting(measured: Measured) -> str:
    """What was done on what, in a few sentences."""
    counts, norms = measured["sequences"], measured["norms"]
    more = len({point["seed"] for point in measured["more_points"]})
    said = (
        f"A table of {measured['vocabulary']:,} embeddings N(0, {measured['std']:g}), d = {measured['dim']}, and one "
        f"block with {measured['heads']} heads as its family begins: weights N(0, {measured['std']:g}), biases 0, no "
        f"dropout. {counts['bert']} sequences of {measured['length']} embeddings for BERT, {counts['gpt2']} for GPT-2 "
        f"and {counts['llama']} for Llama; to each embedding one bias of norm N is added, in a direction N(0, I). "
        f"N is 0 and {len(norms) - 1} values from {norms[1]:g} to {norms[-1]:g}; {len(measured['seeds'])} seeds draw "
        f"table, direction, sequences and weights, {more} more those of BERT at three norms, with two sequences. "
        f"Without attention means that its part of the residual stream is zero. Blocks run in {measured['dtype']}"
    )
    checked = measured["float64"]
    if checked is None:
        return f"{said}. {_BITS}"
    differ = checked["differences"]
    at = ", ".join(f"{norm:g}" for norm in checked["norms"])
    return (
        f"{said}; at N = {at} float64 gives the same mean cosine of the output within {differ['cosine']:.1g}, the same "
        f"1 − cosine within {differ['apart']:.1g} and the same largest softmax within {differ['row_max']:.1g} "
        f"(relative). {_BITS}"
    )


_BITS = "A seed gives the same draws everywhere; the last digits depend on the number of threads, as sums do."

EXPERIMENT = Experiment(
    name="untrained-block",
    title="One untrained block",
    question="Does self-attention alone make embeddings more alike, before any training, and what does a bias that all "
    "of them share do to its scores?",
    claims=CLAIMS,
    measure=measure,
    setting=setting,
    judge=judge,
    tables=tables,
    draw=draw,
)
