"""The measurements as tables: values known before, every norm of the bias for BERT, and the blocks side by side."""

from __future__ import annotations

from collections.abc import Sequence

from fastaniso.paper.experiment import Measured, Table
from fastaniso.paper.untrained_block.block import KINDS
from fastaniso.paper.untrained_block.curves import (
    Curves,
    between,
    cosines_at,
    curves,
    fixed_points,
    norms_of,
    power,
    slopes,
)

KNOWN_RANGES = {
    0.5: (".449", ".458–.474", ".441–.451"),
    1.0: (".765", ".771–.781", ".758–.764"),
    5.0: (".988", ".988–.989", ".987–.988"),
}
"""Input, output, output without attention over four seeds of another computation of ours, in float64."""


def tables(measured: Measured) -> Sequence[Table]:
    """Ranges are over seeds, all other numbers means over seeds."""
    return (_known(measured), _bert(measured), _kinds(measured))


def _known(measured: Measured) -> Table:
    rows: list[tuple[str, ...]] = []
    for norm, known in KNOWN_RANGES.items():
        cells = [f"{norm:g}"]
        for where, before in zip(("input", "output", "without_attention"), known, strict=True):
            cells += [_mean_and_range(cosines_at(measured, norm, where)), before]
        rows.append(tuple(cells))
    count = len(cosines_at(measured, 1.0, "output"))
    return Table(
        f"Mean cosine of a BERT block, mean and range of {count} seeds; known: range of four other seeds in float64",
        ("N", "input", "known", "output", "known", "without attention", "known"),
        tuple(rows),
    )


def _mean_and_range(values: Curves) -> str:
    return f"{values.mean():.3f} ({between(values)})"


def _bert(measured: Measured) -> Table:
    def mean(*path: str) -> Curves:
        means: Curves = curves(measured, "bert", *path).mean(0)
        return means

    columns = (
        mean("input", "cosine"),
        mean("output", "cosine"),
        mean("without_attention", "cosine"),
        mean("input", "norm"),
        mean("output", "norm"),
        mean("scores", "std"),
        mean("scores", "row_std"),
        measured["length"] * mean("scores", "max", "mean"),
        mean("scores", "entropy"),
    )
    return Table(
        "A BERT block at every norm N of the bias, means over seeds; softmax in multiples of uniform attention",
        (
            *("N", "cosine in", "cosine out", "without attention", "norm in", "norm out", "std of scores"),
            *("within a row", "largest softmax", "entropy / log T"),
        ),
        tuple(
            (f"{norm:g}", *(float(column[place]) for column in columns))
            for place, norm in enumerate(norms_of(measured))
        ),
    )


def _kinds(measured: Measured) -> Table:
    rows: list[tuple[str | int, ...]] = []
    for kind, about in KINDS.items():
        for output, what in (("output", ""), ("without_attention", " without attention")):
            found = fixed_points(measured, kind, output)
            crossed = [norm for norm in found if norm is not None]
            scores: tuple[str, ...] = ("–", "–", "–")
            if output == "output":
                entropy = curves(measured, kind, "scores", "entropy")
                scores = (
                    power(slopes(measured, kind, "std")),
                    power(slopes(measured, kind, "row_std")),
                    f"{between(entropy[:, 0])} to {between(entropy[:, -1])}",
                )
            gained = curves(measured, kind, output, "cosine") - curves(measured, kind, "input", "cosine")
            rows.append(
                (
                    f"{about.title}{what}",
                    int((gained > 0).all(0).sum()),
                    between(gained.mean(0)),
                    between(crossed, 2) if crossed else "none",
                    len(crossed),
                    *scores,
                )
            )
    return Table(
        f"Blocks side by side, over {len(measured['norms'])} norms and {len(measured['seeds'])} seeds; powers of N "
        "from N = 5 on",
        (
            *(
                "block",
                "norms with a gain in every seed",
                "gain of mean cosine",
                "N*",
                "seeds with N*",
                "power of std of scores",
            ),
            *("within a row", "entropy / log keys seen"),
        ),
        tuple(rows),
    )
