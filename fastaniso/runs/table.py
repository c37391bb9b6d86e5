"""A comparison as text: a block a metric, a line a site."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from fastaniso.result.base import number
from fastaniso.runs.naming import label_of

if TYPE_CHECKING:
    from fastaniso.runs.comparison import Change, Comparison

SHOWN = (
    *("mean_cosine", "within_sequence", "across_sequences", "drift.norm_of_mean", "drift.relative", "norms.mean"),
    *("isoscore", "effective_rank", "heads.normalized_entropy", "heads.absolute_cosine_of_means"),
)
"""What a table shows unless asked for others: a block each is as much as one reads."""

_HEAD = ("site", "before", "after", "change", "noise (95 %)", "")
_WORDS = {"beyond": "beyond the noise", "likely beyond": "likely beyond", "within": "within", "unknown": ""}


def comparison_table(comparison: Comparison) -> str:
    """The tables, with what was made differently above and what to know below."""
    lines = [f"{comparison.before} → {comparison.after}"]
    width = max((len(name) for name in comparison.made), default=0)
    for name, (before, after) in comparison.made.items():
        lines.append(f"  {name:<{width}}  {_shown(before)} → {_shown(after)}")
    if not comparison.made:
        lines.append("  the same settings")
    for metric, changes in groupby(comparison.changes, key=lambda change: change.metric):
        lines += ["", *_block(label_of(metric), list(changes))]
    lines += [""] if comparison.changes else ["", "no site and metric in common"]
    for which, sites in ((comparison.before, comparison.only_before), (comparison.after, comparison.only_after)):
        if sites:
            lines.append(f"only in {which}: {', '.join(sites)}")
    counted = len(comparison.changes)
    likely = sum(change.verdict == "likely beyond" for change in comparison.changes)
    lines.append(f"of {counted} values {len(comparison.beyond)} changed beyond the noise, {likely} likely beyond")
    if known := sum(change.noise is not None for change in comparison.changes):
        lines.append(f"noise is known of {known}: one in twenty of them may be likely beyond by chance alone")
    return "\n".join((*lines, *(f"note: {note}" for note in comparison.notes)))


def _block(heading: str, changes: list[Change]) -> list[str]:
    known = any(change.noise is not None for change in changes)
    rows = [_HEAD if known else (*_HEAD[:4], "", ""), *(_cells(change) for change in changes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0], cells[-1] = row[0].ljust(widths[0]), row[-1]
        lines.append("  ".join(cells).rstrip())
    return [heading + ("" if known else " (noise unknown)"), *(f"  {line}" for line in lines)]


def _cells(change: Change) -> tuple[str, ...]:
    noise = ""
    if change.noise is not None:
        _, likely, most = (f"{half:.2g}" for half in change.noise)
        noise = f"± {likely}" if likely == most else f"± {likely}, at most {most}"
    return (
        change.site,
        number(change.before),
        number(change.after),
        f"{change.change:+.3g}",
        noise,
        _WORDS[change.verdict],
    )


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
