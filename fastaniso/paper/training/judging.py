"""Verdicts: each claim is a rule for one run, and holds where all seeds of all models that can test it agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fastaniso.paper.claims import Finding, Verdict
from fastaniso.paper.experiment import Measured
from fastaniso.paper.training.series import Curve, Run, by_model, heads, over_blocks, over_heads


@dataclass(frozen=True)
class Ruling:
    """Whether a claim holds in one run, and the figures that the models' seeds are averaged over."""

    holds: bool
    figures: Mapping[str, tuple[float, ...]]


def judge(measured: Measured) -> Sequence[Finding]:
    """A verdict on every claim, over all models and seeds."""
    models = by_model(measured)
    return [_judge(key, rule, models) for key, rule in RULES.items()]


def unrelated(dim: int) -> float:
    """|cos| that two random directions of ``dim`` numbers stay below 19 times in 20: 1.96/√d, from above."""
    return min(1.0, 1.96 / math.sqrt(dim))


def _judge(key: str, rule: Callable[[Run], Ruling | None], models: Mapping[str, Sequence[Run]]) -> Finding:
    said, names, agreed = [], [], True
    reasons = []
    for model, runs in models.items():
        reason = _untested(runs)
        rulings = [] if reason else [ruling for ruling in map(rule, runs) if ruling is not None]
        if not rulings:
            reasons.append(f"{model}: {reason or 'the claim is of other models, or nothing of it was measured'}")
            continue
        held = sum(ruling.holds for ruling in rulings)
        agreed = agreed and held == len(rulings)
        names.append(model)
        said.append(f"{model}: {_figures(rulings)}" + _count(held, len(rulings)))
    if not said:
        return Finding(key, Verdict.untestable, "; ".join(reasons))
    return Finding(key, Verdict.holds if agreed else Verdict.fails, "; ".join(said), tuple(names))


def _untested(runs: Sequence[Run]) -> str:
    """Why a training tests nothing: too few steps, or it has not learned more than how often tokens are."""
    if any(len(run["steps"]) < 2 for run in runs):
        return "measured at one step only"
    for loss in (run["loss"] for run in runs if run["loss"] is not None):
        if loss["held_out"][-1] >= loss["baseline"]:
            return (
                f"it has not learned: a held-out loss of {loss['held_out'][-1]:.2f} is not below "
                f"{loss['baseline']:.2f}, that of the tokens' frequencies"
            )
    return ""


def _figures(rulings: Sequence[Ruling]) -> str:
    parts = []
    for name in rulings[0].figures:
        columns = zip(*(ruling.figures[name] for ruling in rulings), strict=True)
        parts.append(f"{name} {' → '.join(f'{sum(column) / len(column):.3g}' for column in columns)}")
    return ", ".join(parts)


def _count(held: int, seeds: int) -> str:
    return "" if seeds == 1 else f" (means of {seeds} seeds; so in {held} of them)"


def _ends(curve: Curve) -> tuple[float, float] | None:
    first, last = curve[0], curve[-1]
    return None if first is None or last is None else (first, last)


def _means_grow(run: Run) -> Ruling | None:
    queries, keys = _ends(over_heads(run, "query_norm")), _ends(over_heads(run, "key_norm"))
    if queries is None or keys is None:
        return None
    grow = queries[1] > queries[0] and keys[1] > keys[0]
    return Ruling(grow, {"‖Q̄‖": queries, "‖K̄‖": keys})


def _means_align(run: Run) -> Ruling | None:
    ends = _ends(over_heads(run, "cosine", absolute=True))
    if ends is None:
        return None
    middle = median(abs(value) for value in heads(run, "cosine", -1))
    chance = max(unrelated(dim) for dim in run["dims"])
    figures = {"mean |cos|": ends, "median at the end": (middle,), "unrelated directions below": (chance,)}
    return Ruling(ends[1] > ends[0] and middle > chance, figures)


def _both_signs(run: Run) -> Ruling:
    aligned = [
        value
        for values, dim in zip(run["cosine"][-1], run["dims"], strict=True)
        for value in values
        if value is not None and abs(value) > unrelated(dim)
    ]
    same = sum(value > 0 for value in aligned)
    figures = {"aligned heads": (float(len(aligned)),), "of them with the same sign": (float(same),)}
    return Ruling(0 < same < len(aligned), figures)


def _product_grows(run: Run) -> Ruling | None:
    ends = _ends(over_heads(run, "score", absolute=True))
    return None if ends is None else Ruling(ends[1] > ends[0], {"|Q̄·K̄|/√d": ends})


def _attention_sharpens(run: Run) -> Ruling | None:
    ends = _ends(over_heads(run, "entropy"))
    return None if ends is None else Ruling(ends[1] < ends[0], {"entropy / log(keys)": ends})


def _anisotropy_rises(run: Run) -> Ruling | None:
    curve = over_blocks(run, "mean_cosine")
    ends = _ends(curve)
    if ends is None:
        return None
    highest = max(value for value in curve if value is not None)
    figures = {"mean cosine, mean of blocks, first → highest → last": (ends[0], highest, ends[1])}
    return Ruling(ends[1] > ends[0], figures)


def opposite_share(run: Run) -> float | None:
    """Share of heads whose keys lie on the other side than their queries along these's main direction, at the end."""
    keys = heads(run, "key_on_first", -1)
    return sum(value < 0 for value in keys) / len(keys) if keys else None


def _one_filter(run: Run) -> Ruling | None:
    share = opposite_share(run)
    if not run["causal"] or share is None:
        return None
    return Ruling(share > 0.5, {"share of heads with opposite signs": (share,)})


RULES: dict[str, Callable[[Run], Ruling | None]] = {
    "means-grow": _means_grow,
    "means-align": _means_align,
    "both-signs": _both_signs,
    "product-grows": _product_grows,
    "attention-sharpens": _attention_sharpens,
    "anisotropy-rises": _anisotropy_rises,
    "one-filter": _one_filter,
}
