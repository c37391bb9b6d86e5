"""Verdicts on the claims about drift, from the drifts and mean cosines of layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from fastaniso.paper.claims import Finding, Verdict
from fastaniso.paper.experiment import Measured
from fastaniso.paper.models.records import (
    Line,
    Record,
    all_trained,
    found,
    name_of,
    nothing_trained,
    trained,
    untrained,
)

SIGNIFICANT = 0.05
"""The two-sided p of Spearman's ρ below which two courses are said to go together."""

FEWEST = 5
"""Layers that p can fall below ``SIGNIFICANT`` with: of four in perfect order it is 1/12."""

TRANSFORMERS = ("subword", "character", "speech", "vision")

Named = tuple[Record, Line]


def judge(measured: Measured) -> Sequence[Finding]:
    """A verdict on each claim; those about trained models rest on trained models alone."""
    findings = [
        _some_do_not(_told(all_trained(measured))),
        _most("often", _told(trained(measured, *TRANSFORMERS, "other")), TRANSFORMERS, together=True),
        _most("convolutional", _told(trained(measured, "convolutional")), ("convolutional",), together=False),
        _relative(_told(all_trained(measured))),
    ]
    controls = _told(untrained(measured, *TRANSFORMERS))
    if controls:
        apart = [pair for pair in controls if not rises_together(pair[1])]
        because = f"{len(controls) - len(apart)} of {len(controls)} courses"
        because += f"; not {_words(apart)}" if apart else f"; least {_words([min(controls, key=_rho)])}"
        findings.append(found("untrained", not apart, because, _records(controls)))
    return findings


def rises_together(line: Line) -> bool:
    """Whether Spearman's ρ of drift and mean cosine is positive and significant."""
    rho, p = line["correlation"]["rho"], line["correlation"]["p"]
    return rho is not None and rho > 0 and p < SIGNIFICANT


def pearson(line: Line, drift: str = "drift") -> float | None:
    """Pearson's r of the drift and the mean cosine over embedding and blocks; None without spread."""
    pairs = layer_pairs(line, drift)
    if len(pairs) < 3:
        return None
    mean_x, mean_y = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    xx = sum((x - mean_x) ** 2 for x, _ in pairs)
    yy = sum((y - mean_y) ** 2 for _, y in pairs)
    xy = sum((x - mean_x) * (y - mean_y) for x, y in pairs)
    return float(xy / (xx * yy) ** 0.5) if xx * yy > 0 else None


def layer_pairs(line: Line, drift: str = "drift") -> list[tuple[float, float]]:
    """Drift and mean cosine of embedding and blocks, where both are known."""
    values = zip(line["is_layer"], line[drift], line["mean_cosine"], strict=True)
    return [(x, y) for layer, x, y in values if layer and x is not None and y is not None]


def _told(records: Iterable[Record]) -> list[Named]:
    """The lines with enough layers to tell anything."""
    return [(record, line) for record in records for line in record["lines"] if _enough(line)]


def _enough(line: Line) -> bool:
    return line["correlation"]["n"] >= FEWEST and line["correlation"]["rho"] is not None


def _some_do_not(pairs: Sequence[Named]) -> Finding:
    if not pairs:
        return nothing_trained("not-always", *TRANSFORMERS)
    apart = [pair for pair in pairs if not rises_together(pair[1])]
    because = f"not in {_words(apart)}" if apart else f"in all: {_words(pairs)}"
    return found("not-always", bool(apart), because, _records(pairs))


def _most(key: str, pairs: Sequence[Named], figures: Sequence[str], *, together: bool) -> Finding:
    if not pairs:
        return nothing_trained(key, *figures)
    count = sum(rises_together(line) for _, line in pairs)
    most = count if together else len(pairs) - count
    because = f"they rise together in {count} of {len(pairs)} courses: {_words(pairs)}"
    return found(key, most > len(pairs) / 2, because, _records(pairs))


def _relative(pairs: Sequence[Named]) -> Finding:
    both = [(pearson(line), pearson(line, "relative_drift")) for _, line in pairs]
    known = [(raw, relative) for raw, relative in both if raw is not None and relative is not None]
    if not known:
        return Finding("relative", Verdict.untestable, "no trained model with enough layers was measured")
    raw, relative = (median(values) for values in zip(*known, strict=True))
    because = (
        f"the median of Pearson's r over {len(known)} courses is {relative:.3f} for the share, {raw:.3f} for ‖mean‖"
    )
    return found("relative", relative > raw, because, _records(pairs))


def _rho(pair: Named) -> float:
    return float(pair[1]["correlation"]["rho"])


def _words(pairs: Iterable[Named]) -> str:
    return ", ".join(f"{name_of(record, line)} ({spearman_words(line)})" for record, line in pairs)


def spearman_words(line: Line) -> str:
    """ρ, p and the number of layers."""
    rho, p, n = (line["correlation"][key] for key in ("rho", "p", "n"))
    if rho is None:
        return f"too few or equal layers: {n}"
    return f"ρ = {rho:+.2f}, {'p < 1e-6' if p < 1e-6 else f'p = {p:.2g}'}, {n} layers"


def _records(pairs: Iterable[Named]) -> list[Record]:
    return list({record["name"]: record for record, _ in pairs}.values())
