"""What a scan says of queries, keys and attention, head by head, as a report shows it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fastaniso.runs.run import RunAttention

_OF_SCORES = ("entropy", "normalized_entropy", "row_max", "row_median", "row_min", "score_mean")
_OF_PAIRS = ("cosine_of_means", "score_of_means")
_OF_ROWS = ("mean_cosine", "norm_of_mean", "relative")
_BEFORE = "before_rotation."

HEADS = "heads."
"""What stands before the name of a value of each head, where other metrics are named as well."""

HEAD_LABELS = {
    "cosine_of_means": "cos(Q̄, K̄)",
    "absolute_cosine_of_means": "|cos(Q̄, K̄)|",
    "score_of_means": "score of the means, Q̄·K̄ · scale",
    "entropy": "Entropy (nats)",
    "normalized_entropy": "Entropy / log(keys)",
    "row_max": "Largest attention of a row",
    "row_median": "Median attention of a row",
    "row_min": "Least attention of a row",
    "first_key": "Attention to the first key",
    "score_mean": "Score, mean",
    "score_std": "Score, std",
    "queries.mean_cosine": "Queries, mean cosine",
    "queries.norm_of_mean": "Queries, drift ‖mean‖",
    "queries.relative": "Queries, drift ‖mean‖ / mean norm",
    "keys.mean_cosine": "Keys, mean cosine",
    "keys.norm_of_mean": "Keys, drift ‖mean‖",
    "keys.relative": "Keys, drift ‖mean‖ / mean norm",
}

# Values whose convention has another name.
_CONVENTIONS = {"first_key": "attention_to", "score_mean": "scores", "score_std": "score_variance"}

SIGNED = frozenset({"cosine_of_means", "score_of_means", "score_mean"})
"""What lies on both sides of 0: shown in two colours from there."""


def attentions_of(content: Mapping[str, Any]) -> Iterator[RunAttention]:
    """The attentions of a scan's JSON; none of a scan without them."""
    sites = content.get("sites", ())
    for site, short in zip(sites, _short_names([site["site"] for site in sites]), strict=True):
        yield RunAttention(site["site"], short, site["kind"], dict(_values(site)))


def head_label(name: str) -> str:
    """A value of heads in words."""
    base = name.removeprefix(_BEFORE)
    return HEAD_LABELS[base] + (" (before rotation)" if base != name else "")


def head_convention(name: str, conventions: Mapping[str, str]) -> str:
    """How a value of heads is defined, by the conventions of a run."""
    base = name.removeprefix(_BEFORE)
    rows, _, value = base.rpartition(".")
    return conventions.get(f"queries, keys: {value}" if rows else _CONVENTIONS.get(base, base), "")


def is_signed(name: str) -> bool:
    """Whether the value lies on both sides of 0."""
    return name.removeprefix(_BEFORE) in SIGNED


def head_names(attentions: tuple[RunAttention, ...]) -> tuple[str, ...]:
    """The values that any attention has, in the order of the labels, before a rotation last."""
    held = {name for attention in attentions for name in attention.values}
    return tuple(name for prefix in ("", _BEFORE) for name in (prefix + base for base in HEAD_LABELS) if name in held)


def _short_names(names: list[str]) -> list[str]:
    """Names without the parts that all begin or end with."""
    parts = [name.split(".") for name in names]
    if len(set(names)) < 2:
        return names
    for end in (0, -1):
        while all(len(one) > 1 for one in parts) and len({one[end] for one in parts}) == 1:
            for one in parts:
                del one[end]
    return [".".join(one) for one in parts]


def _values(site: Mapping[str, Any]) -> Iterator[tuple[str, tuple[float, ...]]]:
    scores = site["attention"]
    for name in _OF_SCORES:
        yield name, _numbers(scores[name])
    yield "score_std", tuple(math.sqrt(variance) for variance in _numbers(scores["score_variance"]))
    if scores["attention_to"] and scores["attention_to"][0]:
        yield "first_key", _numbers(head[0] for head in scores["attention_to"])
    for prefix, pairs in (("", site["attended"]), (_BEFORE, site["projected"])):
        if pairs is None:
            continue
        for name in _OF_PAIRS:
            yield prefix + name, _numbers(pairs[name])
        yield f"{prefix}absolute_cosine_of_means", tuple(map(abs, _numbers(pairs["cosine_of_means"])))
        for rows in ("queries", "keys"):
            for name in _OF_ROWS:
                yield f"{prefix}{rows}.{name}", _numbers(pairs[rows][name])


def _numbers(values: Any) -> tuple[float, ...]:
    """Of JSON, which has null for nan."""
    return tuple(math.nan if value is None else float(value) for value in values)
