"""The result of a scan from what was read, whole or as far as it came."""

from __future__ import annotations

from fastaniso.scanning.provenance import model_provenance, versions
from fastaniso.scanning.readers import Readers
from fastaniso.scanning.result import ScanResult, TokenCounts
from fastaniso.scanning.subject import Subject


def outcome(
    subject: Subject, readers: Readers, seconds: float, *, complete: bool, partial: bool = False, ranks: int = 1
) -> ScanResult:
    """``partial`` leaves out rows that cannot be normalised whatever was asked, rather than lose the rest.

    What is not complete was measured by one of so many ``ranks``.
    """
    partial = partial or not complete
    modality, anatomy, reader = subject.modality, subject.anatomy, readers.hidden
    tokens = TokenCounts(
        kept=reader.kept,
        dropped=reader.dropped,
        sequences=reader.items,
        batches=reader.batches,
        limited=(modality.limit is not None and reader.kept >= modality.limit)
        or (modality.most_items is not None and reader.items >= modality.most_items),
        skipped=dict(modality.skips.counts),
        unit="positions" if anatomy.stacks[0].maps else modality.unit,
        item=modality.item,
    )
    sites = reader.results(partial=partial)
    notes = [
        *modality.remarks(),
        *(f"left out: {sentence}" for sentence in anatomy.left_out),
    ]
    if tokens.limited:
        what = tokens.item if modality.limit is None else tokens.unit
        notes.append(f"these are the first {what} of the data: a beginning may keep to fewer topics than the whole")
    if not complete:
        notes.append("the scan ended early: the sites that the last batch did not reach lack its rows")
        if ranks > 1:
            notes.append(f"these are the rows of one of {ranks} ranks alone")
    notes += [note for site in sites for note in site.description.notes]
    return ScanResult(
        model=subject.name,
        data=modality.name,
        tokens=tokens,
        sites=sites,
        notes=tuple(dict.fromkeys(notes)),
        seconds=seconds,
        complete=complete,
        provenance={
            **model_provenance(subject.network),
            **modality.provenance,
            "mask": modality.mask,
            "versions": versions(),
        },
        states=reader.states(),
        attention=readers.heads.result(partial=partial) if readers.heads else None,
    )
