"""Verdicts on the claims, from the measurements alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from fastaniso.paper.claims import Finding, Verdict
from fastaniso.paper.experiment import Measured

NEAR_COSINE = 0.1
NEAR_ISOTROPY = 0.9
"""A table is nearly isotropic whose mean cosine is at most the one and whose I(W) is at least the other; states, whose
norms differ from model to model and I(W) with them, by their mean cosine alone."""

PUBLISHED = {
    ("input", "isotropy"): 0.95848,
    ("output", "isotropy"): 0.08309,
    ("input", "centred_isotropy"): 0.99684,
    ("output", "centred_isotropy"): 0.97247,
}
"""I(W) of Pythia-70m, by Machina & Mercer."""
ROUNDING = 5e-4

LEARNED = 2 / 3
"""A language model whose cross-entropy is above this share of a guess's has hardly begun to be a trained one."""

Record = Mapping[str, Any]
Table = Mapping[str, Any]


def judge(measured: Measured) -> Sequence[Finding]:
    """A verdict on each claim; those about trained models rest on models alone that have learned something."""
    trained = [record for record in measured["models"] if record["trained"] and has_learned(record)]
    untrained = [record for record in measured["models"] if not record["trained"]]
    return [
        _table(trained),
        _states([record for record in trained if record["loss"] is not None]),
        _pythia([record for record in trained if is_large_pythia(record)]),
        _output(trained),
        _centring(trained),
        _norm(trained),
        _undoes(trained),
        _published(trained),
        _untrained(untrained),
    ]


def is_large_pythia(record: Record) -> bool:
    """Whether it is one of Pythia's models of 410 million parameters or more."""
    name = record["name"].lower()
    return "pythia" in name and not any(small in name for small in ("14m", "31m", "70m", "160m"))


def has_learned(record: Record) -> bool:
    """Whether a model predicts clearly better than a guess; of one without a head there is nothing to ask."""
    return record["loss"] is None or bool(record["loss"] <= LEARNED * record["chance"])


def is_near(table: Table) -> bool:
    """Whether a table is nearly isotropic."""
    return bool(abs(table["cosine"]) <= NEAR_COSINE and table["isotropy"] >= NEAR_ISOTROPY)


def spanning(records: Iterable[Record]) -> list[tuple[Record, Table]]:
    """Tables with at least as many rows as dimensions; in others some directions of I(W) meet no row at all."""
    return [(r, table) for r in records for table in r["tables"] if table["rows"] >= table["dim"]]


def called(record: Record, table: Table) -> str:
    """A table by its model and place."""
    return f"{record['name']} ({table['table']})"


def last_state(record: Record) -> float:
    """The mean cosine of what a language model's head reads: behind the final norm if there is one."""
    if record["norms"]:
        return float(record["norms"][-1]["after"])
    return float(list(list(record["stacks"].values())[-1].values())[-1])


def norms(records: Iterable[Record]) -> list[tuple[str, Record, Mapping[str, Any]]]:
    """Every final norm, by name."""
    return [(f"{r['name']} {norm['stack']}".rstrip(), r, norm) for r in records for norm in r["norms"]]


def _table(records: Sequence[Record]) -> Finding:
    found = spanning(records)
    if not found:
        return _none("table", "no trained model with a table of at least as many rows as dimensions was measured")
    because = ", ".join(f"{called(*one)} {one[1]['cosine']:.3f} and {one[1]['isotropy']:.3f}" for one in found)
    near = [called(record, table) for record, table in found if is_near(table)]
    return _one_at_least("table", near, f"mean cosine and I(W): {because}", [record for record, _ in found])


def _states(records: Sequence[Record]) -> Finding:
    if not records:
        return _none("states", "no trained language model was at hand")
    near = [record["name"] for record in records if _near_states(record)]
    return _one_at_least("states", near, _last_states(records), records)


def _pythia(records: Sequence[Record]) -> Finding:
    if not records:
        return _none("pythia", "none was at hand: --size full looks for them on a hub")
    return _found("pythia", all(map(_near_states, records)), _last_states(records), records)


def _near_states(record: Record) -> bool:
    return abs(last_state(record)) <= NEAR_COSINE


def _last_states(records: Sequence[Record]) -> str:
    values = (f"{record['name']} {last_state(record):.3f}" for record in records)
    return f"mean cosine of the last states: {', '.join(values)}"


def _one_at_least(key: str, near: Sequence[str], because: str, records: Iterable[Record]) -> Finding:
    """What is said to exist is shown by one, which is named; that none of a few is does not deny it."""
    finding = _found(key, True, because, records)
    if near:
        return replace(finding, because=f"of those at hand {', '.join(near)} alone: {because}")
    return replace(
        finding, verdict=Verdict.untestable, because=f"none of those at hand is, and others may be: {because}"
    )


def _output(records: Sequence[Record]) -> Finding:
    pairs = []
    for record in records:
        tables = {table["table"]: table for _, table in spanning([record])}
        if {"input", "output"} <= tables.keys():
            pairs.append((record, tables["input"]["isotropy"], tables["output"]["isotropy"]))
    if not pairs:
        return _none("output", "every trained model at hand has one table for both, or no head")
    because = ", ".join(f"{record['name']} {first:.3f} and {last:.3f}" for record, first, last in pairs)
    holds = all(last < first for _, first, last in pairs)
    return _found("output", holds, f"I(W) of input and output embeddings: {because}", [pair[0] for pair in pairs])


def _centring(records: Sequence[Record]) -> Finding:
    found = [(record, table) for record, table in spanning(records) if table["isotropy"] < NEAR_ISOTROPY]
    if not found:
        return _none("centring", f"no trained table at hand has an I(W) below {NEAR_ISOTROPY} to begin with")
    because = ", ".join(
        f"{called(record, table)} {table['isotropy']:.3f} → {table['centred_isotropy']:.3f}" for record, table in found
    )
    holds = all(table["centred_isotropy"] >= NEAR_ISOTROPY for _, table in found)
    return _found("centring", holds, f"I(W) as it is → centred: {because}", [record for record, _ in found])


def _norm(records: Sequence[Record]) -> Finding:
    found = norms(records)
    if not found:
        return _none("norm", "no trained model with a final norm was at hand")
    parts, holds = [], True
    for name, record, norm in found:
        layers = list(record["stacks"][norm["stack"]].values())
        most = max(abs(after - before) for before, after in pairwise(layers))
        moved = norm["after"] - norm["before"]
        holds &= abs(moved) > most
        parts.append(f"{name} {moved:+.3f}, a block at most {most:.3f}")
    return _found("norm", holds, f"change of the mean cosine: {'; '.join(parts)}", [record for _, record, _ in found])


def _undoes(records: Sequence[Record]) -> Finding:
    found = norms(records)
    if not found:
        return _none("undoes", "no trained model with a final norm was at hand")
    because = ", ".join(f"{name} {norm['before']:.3f} → {norm['after']:.3f}" for name, _, norm in found)
    holds = all(norm["after"] < norm["before"] for _, _, norm in found)
    return _found("undoes", holds, f"mean cosine before → after: {because}", [record for _, record, _ in found])


def _published(records: Sequence[Record]) -> Finding:
    model = next((record for record in records if "pythia-70m" in record["name"].lower()), None)
    if model is None:
        return _none("published", "Pythia-70m was not at hand: --size full looks for it on a hub")
    tables = {table["table"]: table for table in model["tables"]}
    ours = {place: tables.get(place[0], {}).get(place[1]) for place in PUBLISHED}
    holds = all(value is not None and abs(value - PUBLISHED[place]) <= ROUNDING for place, value in ours.items())
    because = ", ".join(
        f"{table} {'centred ' if 'centred' in kind else ''}{'–' if value is None else format(value, '.5f')} "
        f"(published {PUBLISHED[table, kind]})"
        for (table, kind), value in ours.items()
    )
    return _found("published", holds, because, [model])


def _untrained(records: Sequence[Record]) -> Finding:
    found = spanning(records)
    if not found:
        return _none("untrained", "no untrained model was measured")
    least = min(table["isotropy"] for _, table in found)
    most = max(abs(table["cosine"]) for _, table in found)
    because = f"least I(W) {least:.4f}, mean cosines within ±{most:.4f}"
    return _found("untrained", all(is_near(table) for _, table in found), because, [record for record, _ in found])


def _none(key: str, reason: str) -> Finding:
    return Finding(key, Verdict.untestable, reason)


def _found(key: str, holds: bool, because: str, records: Iterable[Record]) -> Finding:
    models = tuple(dict.fromkeys(record["name"] for record in records))
    return Finding(key, Verdict.holds if holds else Verdict.fails, because, models)
