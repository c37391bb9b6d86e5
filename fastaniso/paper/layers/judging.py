"""Verdicts on the claims about layers, from the mean cosines alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from fastaniso.paper.claims import Finding, Verdict
from fastaniso.paper.experiment import Measured
from fastaniso.paper.models.records import (
    Record,
    all_trained,
    control,
    found,
    known,
    name_of,
    names,
    nothing_trained,
    peak,
    trained,
    untrained,
)

ANISOTROPIC = 0.1
"""The mean cosine from which states count as close to each other; of an isotropic cloud it is 0."""


def judge(measured: Measured) -> Sequence[Finding]:
    """A verdict on each claim; those about trained models rest on trained models alone."""
    return [
        _somewhere("subword", trained(measured, "subword")),
        _somewhere("character", trained(measured, "character")),
        _more(trained(measured, "character"), trained(measured, "subword")),
        _decoder(trained(measured, "subword", "character")),
        _everywhere("speech", trained(measured, "speech")),
        _both("vision", trained(measured, "vision")),
        _mostly_isotropic("convolutional", trained(measured, "convolutional")),
        _somewhere("other", trained(measured, "other")),
        *_controls(measured),
    ]


def _somewhere(key: str, records: Sequence[Record]) -> Finding:
    if not records:
        return nothing_trained(key, key)
    return found(key, all(peak(record)[0] > ANISOTROPIC for record in records), _peaks(records), records)


def _more(characters: Sequence[Record], subwords: Sequence[Record]) -> Finding:
    if not characters or not subwords:
        return nothing_trained("more", *([] if characters else ["character"]), *([] if subwords else ["subword"]))
    of_characters, of_subwords = (median(peak(record)[0] for record in some) for some in (characters, subwords))
    because = f"the median of their largest mean cosines is {of_characters:.3f} against {of_subwords:.3f}"
    return found("more", of_characters > of_subwords, because, [*characters, *subwords])


def _decoder(records: Sequence[Record]) -> Finding:
    pairs = []
    for record in records:
        ends = {line["name"]: max(x for _, x in known(line)) for line in record["lines"]}
        if {"encoder", "decoder"} <= ends.keys():
            pairs.append((record, ends["encoder"], ends["decoder"]))
    if not pairs:
        return Finding("decoder", Verdict.untestable, "no trained encoder–decoder of text was measured")
    because = ", ".join(f"{record['name']} {encoder:.3f} and {decoder:.3f}" for record, encoder, decoder in pairs)
    holds = all(decoder > encoder for _, encoder, decoder in pairs)
    return found("decoder", holds, f"largest mean cosine in encoder and decoder: {because}", [p[0] for p in pairs])


def _everywhere(key: str, records: Sequence[Record]) -> Finding:
    if not records:
        return nothing_trained(key, key)
    least = [min(x for line in record["lines"] for _, x in known(line)) for record in records]
    because = "least mean cosine of a layer: " + ", ".join(
        f"{record['name']} {x:.3f}" for record, x in zip(records, least, strict=True)
    )
    return found(key, min(least) > ANISOTROPIC, because, records)


def _both(key: str, records: Sequence[Record]) -> Finding:
    if not records:
        return nothing_trained(key, key)
    if len(records) < 2:
        return Finding(key, Verdict.untestable, f"one model alone cannot differ: {_peaks(records)}", names(records))
    some = {peak(record)[0] > ANISOTROPIC for record in records}
    return found(key, len(some) == 2, _peaks(records), records)


def _mostly_isotropic(key: str, records: Sequence[Record]) -> Finding:
    if not records:
        return nothing_trained(key, key)
    shares = []
    for record in records:
        values = [x for line in record["lines"] for _, x in known(line)]
        shares.append(sum(x <= ANISOTROPIC for x in values) / len(values))
    because = f"share of layers at or below {ANISOTROPIC}: " + ", ".join(
        f"{record['name']} {share:.2f}" for record, share in zip(records, shares, strict=True)
    )
    return found(key, sum(share > 0.5 for share in shares) > len(records) / 2, because, records)


def _controls(measured: Measured) -> Iterator[Finding]:
    transformers = untrained(measured, "subword", "character", "speech", "vision")
    if transformers:
        isotropic = [record for record in transformers if peak(record)[0] <= ANISOTROPIC]
        some = f"{len(transformers) - len(isotropic)} of {len(transformers)} have one"
        because = f"{some}; not {_peaks(isotropic)}" if isotropic else f"{some}; {_peaks(transformers)}"
        yield found("untrained", not isotropic, because, transformers)
    texts = untrained(measured, "subword", "character")
    if texts:
        ends = [(name_of(r, line), known(line)[0][1], known(line)[-1][1]) for r in texts for line in r["lines"]]
        because = ", ".join(f"{name} {first:.3f} → {last:.3f}" for name, first, last in ends)
        yield found("deeper", all(last > first for _, first, last in ends), because, texts)
    pairs = [(record, other) for record in all_trained(measured) if (other := control(measured, record))]
    if pairs:
        because = ", ".join(f"{one['name']} {peak(one)[0]:.3f} against {peak(other)[0]:.3f}" for one, other in pairs)
        holds = all(peak(one)[0] > peak(other)[0] for one, other in pairs)
        yield found("training", holds, f"largest mean cosine: {because}", [one for one, _ in pairs])


def _peaks(records: Sequence[Record]) -> str:
    told = ((record["name"], *peak(record)) for record in records)
    return ", ".join(f"{name} {x:.3f} at {site}" for name, x, site in told)
