"""Records of models, as ``scans.measure`` makes them, asked for what claims and pictures need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastaniso.paper.claims import Finding, Verdict
from fastaniso.paper.models.figures import FIGURES

Record = Mapping[str, Any]
Line = Mapping[str, Any]


def trained(measured: Mapping[str, Any], *figures: str) -> list[Record]:
    """The trained models, of some figures or of all but other sequences."""
    wanted = figures or [figure for figure in FIGURES if figure != "other"]
    return [record for record in measured["models"] if record["trained"] and record["figure"] in wanted]


def all_trained(measured: Mapping[str, Any]) -> list[Record]:
    """The trained models, other sequences last."""
    return [*trained(measured), *trained(measured, "other")]


def untrained(measured: Mapping[str, Any], *figures: str) -> list[Record]:
    """The untrained models of the families, without those that stand beside a trained model."""
    wanted = figures or tuple(FIGURES)
    return [
        record
        for record in measured["models"]
        if not record["trained"] and record["control_of"] is None and record["figure"] in wanted
    ]


def control(measured: Mapping[str, Any], record: Record) -> Record | None:
    """The untrained model of the configuration of a trained one."""
    return next((other for other in measured["models"] if other["control_of"] == record["name"]), None)


def name_of(record: Record, line: Line) -> str:
    """A line by name: the model's, and the stack's where it has several."""
    return f"{record['name']} {line['name']}".rstrip()


def known(line: Line, value: str = "mean_cosine") -> list[tuple[str, float]]:
    """Sites and values where there is one."""
    return [(site, x) for site, x in zip(line["sites"], line[value], strict=True) if x is not None]


def peak(record: Record) -> tuple[float, str]:
    """The largest mean cosine of a model, and where: "decoder block.3"."""
    return max((x, f"{line['name']} {site}".lstrip()) for line in record["lines"] for site, x in known(line))


def names(records: Iterable[Record]) -> tuple[str, ...]:
    """What the models are called."""
    return tuple(record["name"] for record in records)


def nothing_trained(key: str, *figures: str) -> Finding:
    """The finding on a claim about trained models of which none was measured."""
    kinds = " and ".join(FIGURES[figure].title.lower() for figure in figures)
    reason = f"no trained model was measured of: {kinds}; an untrained one says nothing of them"
    return Finding(key, Verdict.untestable, reason)


def found(key: str, holds: bool, because: str, records: Sequence[Record]) -> Finding:
    """The finding on a claim that was measured."""
    return Finding(key, Verdict.holds if holds else Verdict.fails, because, names(records))
