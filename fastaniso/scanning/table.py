"""A scan as text: one line a site, the columns that are read side by side next to each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastaniso.result import Description

if TYPE_CHECKING:
    from fastaniso.scanning.result import ScanResult, SiteResult

_HEAD = (
    ("site", ""),
    ("mean", "cosine"),
    ("std", "cosine"),
    ("within", "sequence"),
    ("across", "sequences"),
    ("without", "top 3"),
    ("drift", "‖mean‖"),
    ("drift", "/norm"),
    ("norm", "mean"),
    ("Iso-", "Score"),
    ("eff.", "rank"),
    ("top dimensions:", "contribution"),
)


def scan_table(result: ScanResult) -> str:
    """The table, with what was read above it and what to know below."""
    rows = [tuple(first for first, _ in _HEAD), tuple(second for _, second in _HEAD)]
    rows += [_cells(site) for site in result.sites]
    # Columns that nothing fills (gram=False) are left out.
    filled = [i for i in range(len(_HEAD)) if any(row[i] for row in rows[2:])]
    widths = {i: max(len(row[i]) for row in rows) for i in filled}
    lines = []
    for number, row in enumerate(rows):
        cells = [row[i].ljust(widths[i]) if i in (0, len(_HEAD) - 1) else row[i].rjust(widths[i]) for i in filled]
        lines.append("  ".join(cells).rstrip())
        if number == 1:
            lines.append("─" * (sum(widths.values()) + 2 * (len(filled) - 1)))
    return "\n".join((*_above(result), "", *lines, "", *_below(result)))


def _above(result: ScanResult) -> list[str]:
    tokens, made = result.tokens, result.provenance
    most = f" of at most {made['max_length']}" if made.get("max_length") else ""
    dropped, skipped = (
        ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
        for counts in (tokens.dropped, tokens.skipped)
    )
    return [
        f"{result.model} ({made['model_class']}, {made['dtype']}, {made['device']}) on {result.data}",
        f"{tokens.kept:,} {tokens.unit} in {tokens.sequences:,} {tokens.item}{most}; dropped: {dropped or 'none'}; "
        + (f"{tokens.item} skipped: {skipped}; " if skipped else "")
        + f"{tokens.kept / max(result.seconds, 1e-9):,.0f} {tokens.unit}/s",
        *(() if result.complete else ("NOT COMPLETE: the scan ended early",)),
    ]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())


def _below(result: ScanResult) -> list[str]:
    lines = [
        f"{prefix.rstrip('.') or 'embedding and blocks'}: Spearman ρ of drift ‖mean‖ and mean cosine {rho:+.2f}"
        for prefix, rho in result.drift_correlation.items()
        if not math.isnan(rho)
    ]
    return [*lines, *(f"note: {note}" for note in result.notes)]


def _cells(site: SiteResult) -> tuple[str, ...]:
    d: Description = site.description
    return (
        site.site,
        _cosine(d.mean_cosine),
        _cosine(d.cosine_std),
        _cosine(site.within_sequence),
        _cosine(site.across_sequences),
        _cosine(d.mean_cosine_without_top3),
        _short(d.drift.norm_of_mean),
        _cosine(d.drift.relative),
        _short(d.norms.mean),
        _cosine(d.isoscore),
        "" if d.effective_rank is None else f"{d.effective_rank:.1f}",
        ", ".join(f"{dimension}: {_cosine(value)}" for dimension, value in d.top_dimensions[:3]),
    )


def _cosine(value: float | None) -> str:
    if value is None:
        return ""
    text = f"{value:.3f}"
    # Without the zero before the point, as is usual for what lies between −1 and 1: the table fits a terminal.
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def _short(value: float) -> str:
    return f"{value:.4g}"
