"""Attentions as text: a line a site, its heads as their mean, or as the least and the largest of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastaniso.scanning.attention.result import AttentionResult, AttentionSite

_HEAD = (
    ("attention", ""),
    ("heads", ""),
    ("position", ""),
    ("mean cos", "Q"),
    ("mean cos", "K"),
    ("drift/norm", "Q"),
    ("drift/norm", "K"),
    ("cos(Q̄, K̄)", "by head"),
    ("|cos|", "mean"),
    ("score", "mean"),
    ("score", "std"),
    ("entropy", "/log(keys)"),
    ("row", "max"),
    ("first", "key"),
)


def attention_table(result: AttentionResult) -> str:
    """The table and the notes."""
    rows = [tuple(first for first, _ in _HEAD), tuple(second for _, second in _HEAD)]
    rows += [cells for site in result.sites for cells in _lines(site)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(width) if column in (0, 2) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
        if number == 1:
            lines.append("─" * (sum(widths) + 2 * (len(widths) - 1)))
    sinks = f"sink rate: {_number(result.sink_rate)} of all heads give more than .3 to the first key"
    return "\n".join((*lines, "", *([] if math.isnan(result.sink_rate) else [sinks]), *_notes(result)))


def _notes(result: AttentionResult) -> list[str]:
    return ["means over heads", *(f"note: {note}" for note in result.notes)]


def _lines(site: AttentionSite) -> list[tuple[str, ...]]:
    attention = site.attention
    heads = str(site.heads) if site.heads == site.key_heads else f"{site.heads}/{site.key_heads}"
    scores = (
        _number(_mean(attention.score_mean)),
        _number(_mean(tuple(math.sqrt(variance) for variance in attention.score_variance))),
        _number(_mean(attention.normalized_entropy)),
        _number(_mean(attention.row_max)),
        _number(_mean(tuple(attention.attention_to[:, 0].tolist()))) if attention.attention_to.shape[1] else "",
    )
    lines = []
    for pair in (site.attended, site.projected):
        if pair is None:
            continue
        first = pair is site.attended
        lines.append(
            (
                site.site + (" (cross)" if site.kind == "cross" else "") if first else "",
                heads if first else "",
                pair.position,
                _number(_mean(pair.queries.mean_cosine)),
                _number(_mean(pair.keys.mean_cosine)),
                _number(_mean(pair.queries.relative)),
                _number(_mean(pair.keys.relative)),
                f"{_number(min(pair.cosine_of_means))} … {_number(max(pair.cosine_of_means))}",
                _number(pair.absolute_cosine_of_means),
                *(scores if first else ("",) * len(scores)),
            )
        )
    return lines


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    text = f"{value:.3f}" if abs(value) < 100 else f"{value:.3g}"
    # Without the zero before the point, as is usual for what lies between −1 and 1: the table fits a terminal.
    return text.replace("0.", ".", 1) if abs(value) < 1 else text
