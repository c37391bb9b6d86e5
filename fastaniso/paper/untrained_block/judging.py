"""The rule of each verdict, from the measurements alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastaniso.paper.claims import Finding, Verdict
from fastaniso.paper.experiment import Measured
from fastaniso.paper.untrained_block.block import KINDS
from fastaniso.paper.untrained_block.curves import (
    Curves,
    between,
    cosines_at,
    crossing,
    curves,
    fixed_points,
    gains,
    norms_of,
    power,
    slopes,
)

SHARP = 0.5
"""Attention is called sharp where the largest softmax of a row, in the mean, takes half of it."""
ORDER = 10**0.5
"""Of the order of √d: within this factor, either way."""
ROUNDING = 1e-6
"""A cosine that falls by less has not fallen."""
MEAN_ERROR = 1e-3
"""The mean query may be off the projection of the mean row by this share of its norm: sums of float32 are."""


def judge(measured: Measured) -> Sequence[Finding]:
    """A verdict on each claim. Means are over seeds, and how many seeds differ is said."""
    return (
        _rises(measured),
        _attention(measured),
        _control(measured),
        _fixed_point(measured),
        _trained_norms(measured),
        _spread(measured),
        _softmax(measured),
        _sharp_at_fixed_point(measured),
        _queries_keys(measured),
        _pre_norm(measured),
    )


def _finding(key: str, holds: bool, because: str, *kinds: str) -> Finding:
    models = tuple(f"untrained {KINDS[kind].title} block" for kind in kinds or ("bert",))
    return Finding(key, Verdict.holds if holds else Verdict.fails, because, models)


def _rises(measured: Measured) -> Finding:
    gained = gains(measured, "bert")
    because = _where(measured, gained > 0, "above the input's")
    return _finding(
        "rises", bool((gained.mean(0) > 0).all()), f"{because}; {_more(measured)}; {_most(measured, gained)}"
    )


def _attention(measured: Measured) -> Finding:
    more = curves(measured, "bert", "output", "cosine") - curves(measured, "bert", "without_attention", "cosine")
    because = _where(measured, more > 0, "above that without attention")
    return _finding("attention", bool((more.mean(0) > 0).all()), f"{because}; {_most(measured, more)}")


def _control(measured: Measured) -> Finding:
    gained = gains(measured, "bert", "without_attention")
    norms = norms_of(measured)
    above = [f"{norm:g}" for norm, mean in zip(norms, gained.mean(0), strict=True) if mean > 0]
    known = _gain_at_one(measured, "output").mean()
    because = _where(measured, gained > 0, "above the input's")
    because += f"; in the mean of seeds at N = {', '.join(above)}" if 0 < len(above) < len(norms) else ""
    none = between(curves(measured, "bert", "without_attention", "cosine")[:, 0])
    because += f"; {_more(measured, 'without_attention')}, where attention makes it {known:+.4f}"
    because += f"; without bias or attention the feed-forward alone, whose GELU has a mean, makes {none}"
    return _finding("control", not above, because)


def _fixed_point(measured: Measured) -> Finding:
    root = measured["dim"] ** 0.5
    found, alone = fixed_points(measured, "bert"), fixed_points(measured, "bert", "without_attention")
    crossed = [norm for norm in found if norm is not None]
    holds = len(crossed) == len(found) and all(root / ORDER <= norm <= root * ORDER for norm in crossed)
    because = f"crossed in {len(crossed)} of {len(found)} seeds"
    because += f", at N* = {between(crossed, 2)}" if crossed else ""
    same = [norm for norm in alone if norm is not None]
    because += f"; √{measured['dim']} = {root:.2f}"
    if same:
        because += (
            f"; without attention at {between(same, 2)}: it is the closing LayerNorm, whose output has the norm √d "
            "whatever comes in"
        )
    return _finding("fixed-point", holds, because)


def _trained_norms(measured: Measured) -> Finding:
    trained = [one for one in measured["trained"] if one["norm_over_root"]]
    if not trained:
        reason = "no trained model was measured; a random initialisation says nothing of them"
        return Finding("trained-norms", Verdict.untestable, reason)
    middles = np.array([np.median(one["norm_over_root"]) for one in trained])
    near = (middles >= 1 / ORDER) & (middles <= ORDER)
    said = [
        f"{one['name']}: its layers have mean norms {between(one['norm_over_root'], 2)} times √d, median {middle:.2f}"
        for one, middle in zip(trained, middles, strict=True)
    ]
    names = tuple(one["name"] for one in trained)
    verdict = Verdict.holds if near.mean() > 0.5 else Verdict.fails
    because = f"the median layer is within a factor of {ORDER:.1f} of √d in {int(near.sum())} of {len(near)} models: "
    return Finding("trained-norms", verdict, because + "; ".join(said), names)


def _spread(measured: Measured) -> Finding:
    powers, seen = slopes(measured, "bert", "std"), slopes(measured, "bert", "row_std")
    because = (
        f"from N = 5 on the standard deviation of all scores grows as N to the power {power(powers)}; that within "
        f"a row, which alone the softmax sees, to the power {power(seen)}: the rest is a constant of each head"
    )
    return _finding("spread", bool((abs(powers - 2) < 0.1).all()), because)


def _softmax(measured: Measured) -> Finding:
    norms, most = norms_of(measured), curves(measured, "bert", "scores", "max", "mean")
    least = curves(measured, "bert", "scores", "min", "mean")
    far = norms >= 1
    moved = bool((np.diff(most[:, far]) > 0).all() and (np.diff(least[:, far]) <= 0).all())
    sharp = [crossing(norms, one, SHARP) for one in most]
    reached = [norm for norm in sharp if norm is not None]
    because = (
        f"from N = 1 on the largest {'grows' if moved else 'does not always grow'} at each step of every seed, from "
        f"{_uniform(measured, most[:, far][:, 0])} to {between(most[:, -1])} at N = {norms[-1]:g}"
    )
    because += f"; half of a row at N = {between(reached, 0)}" if reached else "; half of a row at no norm measured"
    return _finding("softmax", moved and len(reached) == len(sharp), because)


def _sharp_at_fixed_point(measured: Measured) -> Finding:
    norms, most = norms_of(measured), curves(measured, "bert", "scores", "max", "mean")
    found = fixed_points(measured, "bert")
    if any(norm is None for norm in found):
        return Finding("sharp-at-fixed-point", Verdict.untestable, "there is no such norm in every seed")
    at = [np.interp(norm, norms, one) for norm, one in zip(found, most, strict=True)]  # type: ignore[arg-type]
    because = f"at N* the largest softmax of a row is {_uniform(measured, at)}, in the mean of rows and heads"
    return _finding("sharp-at-fixed-point", bool(np.min(at) >= SHARP), because)


def _queries_keys(measured: Measured) -> Finding:
    error = curves(measured, "bert", "mean_query_error").max()
    grows, said = error < MEAN_ERROR, []
    for name in ("queries", "keys"):
        cosine, norm = (curves(measured, "bert", name, quantity) for quantity in ("cosine", "norm"))
        grows &= bool((np.diff(cosine) > -ROUNDING).all() and (np.diff(norm) > 0).all())
        far = norms_of(measured) >= 1
        said.append(
            f"{name}: mean cosine {between(cosine[:, 0])} without bias, {between(cosine[:, far][:, 0])} at N = 1"
        )
    because = f"the mean query is off the projection by {error:.1g} of its norm at most; {'; '.join(said)}"
    return _finding("queries-keys", bool(grows), because)


def _pre_norm(measured: Measured) -> Finding:
    holds, said = True, []
    for kind in ("gpt2", "llama"):
        gained = gains(measured, kind)
        norms = norms_of(measured)
        # The first norm at which some seed has no gain ends the stretch.
        until = int(np.logical_and.accumulate((gained > 0).all(0)).sum())
        crossed = [norm for norm in fixed_points(measured, kind) if norm is not None]
        powers = slopes(measured, kind, "std")
        entropy = curves(measured, kind, "scores", "entropy")
        said.append(
            f"{KINDS[kind].title}: output above input in every seed {_up_to(norms, until)} "
            f"(gain at most {gained.mean(0).max():.3f}), norms cross in {len(crossed)} of {len(gained)} seeds"
            + (f" (N = {between(crossed, 0)})" if crossed else "")
            + f", scores from N = 5 on as N to the power {power(powers)}, entropy over its most from "
            f"{between(entropy[:, 0], 4)} to {between(entropy[:, -1], 4)}"
        )
        root = measured["dim"] ** 0.5
        fixed = len(crossed) == len(gained) and all(root / ORDER <= norm <= root * ORDER for norm in crossed)
        holds &= bool((gained.mean(0) > 0).all() and fixed and (abs(powers - 2) < 0.1).all())
    because = "; ".join(said) + ". Normalised first, the rows that attention sees have one length whatever the bias"
    return _finding("pre-norm", holds, because, "gpt2", "llama")


def _up_to(norms: Curves, count: int) -> str:
    return f"up to N = {norms[count - 1]:g}" if count else "at no norm from 0 on"


def _where(measured: Measured, above: NDArray[np.bool_], what: str) -> str:
    """How many of the seeds and norms are so, and at which norms not all seeds are."""
    said = f"{what} in {int(above.sum())} of {above.size} pairs of seed and norm"
    mixed = [
        f"N = {norm:g} ({int(column.sum())} of {len(column)} seeds)"
        for norm, column in zip(norms_of(measured), above.T, strict=True)
        if not column.all()
    ]
    return f"{said}; not in every seed at {', '.join(mixed)}" if 0 < len(mixed) < 6 else said


def _more(measured: Measured, where: str = "output") -> str:
    gained = _gain_at_one(measured, where)
    return f"at N = 1 in {int((gained > 0).sum())} of {len(gained)} seeds, {gained.mean():+.4f} in their mean"


def _gain_at_one(measured: Measured, where: str) -> Curves:
    """By seed, of all there are, the gain of mean cosine at a bias of norm 1."""
    return cosines_at(measured, 1.0, where) - cosines_at(measured, 1.0, "input")


def _most(measured: Measured, gained: Curves) -> str:
    best = int(gained.mean(0).argmax())
    return f"most at N = {norms_of(measured)[best]:g}, by {between(gained[:, best])}"


def _uniform(measured: Measured, softmax: object) -> str:
    """Softmax values as multiples of that of uniform attention."""
    return f"{between(np.asarray(softmax) * measured['length'])} times 1/{measured['length']}"
