"""What a page is given to show: plain lists and words, small enough to be read by a browser at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastaniso.report.runs import CONFIDENT, about, eigenvalue_shares, lowest_shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastaniso.result import PairStatistics
    from fastaniso.runs.naming import Named
    from fastaniso.runs.run import Run, RunSite

DRIFTS = {
    "norm_of_mean": "drift ‖mean‖",
    "relative": "drift ‖mean‖ / mean norm",
    "unit": "drift of unit rows",
}

_RANKS = 160
"""Of a spectrum at most so many eigenvalues, evenly on the logarithmic scale that shows it."""

_BARS = 256
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def payload(runs: Sequence[Run], metrics: Iterable[Named], heads: Iterable[Named]) -> dict[str, Any]:
    """Runs and metrics as JSON takes them: null for nan and ±inf."""
    return {
        "metrics": [metric._asdict() for metric in metrics],
        "heads": [{**value._asdict(), "name": value.name.partition(".")[2]} for value in heads],
        "drifts": DRIFTS,
        "runs": [_run(run) for run in runs],
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "kind": run.kind,
        "heading": about(run),
        "about": _lines(run.about),
        "provenance": _lines(run.provenance),
        "notes": [*run.notes, *(f"the folder lacks {what}" for what in run.missing)],
        "conventions": dict(run.conventions),
        "stacks": [
            {
                "stack": stack,
                "sites": [_site(site) for site in sites],
                "correlations": {
                    drift: [_finite(found.rho), _finite(found.p), found.n, found.method]
                    for drift, found in ((drift, run.drift_correlation(drift)[stack]) for drift in DRIFTS)
                },
            }
            for stack, sites in run.stacks.items()
        ],
        "pairs": None if run.pairs is None else _pairs(run.pairs),
        "attentions": [
            {
                "site": attention.site,
                "short": attention.short_name,
                "kind": attention.kind,
                "values": {name: [_rounded(value) for value in values] for name, values in attention.values.items()},
            }
            for attention in run.attentions
        ],
    }


def _site(site: RunSite) -> dict[str, Any]:
    return {
        "site": site.site,
        "short": site.short_name,
        "layer": site.is_layer,
        "n": site.n,
        "dim": site.dim,
        "values": {name: _rounded(value) for name, value in site.values.items()},
        "noise": {name: _rounded(CONFIDENT * noise.likely) for name, noise in site.noise.items()},
        "top": [[dimension, _rounded(value)] for dimension, value in site.top_dimensions],
        "spectrum": None if site.eigenvalues is None else _spectrum(site.eigenvalues),
        "lowest": None if site.eigenvalues is None else lowest_shown(eigenvalue_shares(site.eigenvalues)),
    }


def _spectrum(eigenvalues: NDArray[np.float64]) -> list[list[float | None]]:
    """[rank, share]: of all, or at ranks that grow by a constant factor, the first and the last always."""
    shares = eigenvalue_shares(eigenvalues)
    if not len(shares):
        return []
    few = len(shares) <= _RANKS
    ranks = (
        np.arange(1, len(shares) + 1) if few else np.unique(np.geomspace(1, len(shares), _RANKS).round().astype(int))
    )
    return [[int(rank), _rounded(float(shares[rank - 1]))] for rank in ranks]


def _pairs(pairs: PairStatistics) -> dict[str, Any]:
    histogram = pairs.histogram
    # Bins are joined until those that hold a pair are no more than a picture can show.
    step = -(-int(np.count_nonzero(histogram.total)) // _BARS) or 1
    counts = np.add.reduceat(histogram.values(), np.arange(0, len(histogram), step))
    edges = np.append(histogram.edges[:-1:step], histogram.edges[-1])
    held = np.flatnonzero(counts)
    first, last = (int(held[0]), int(held[-1]) + 1) if len(held) else (0, 0)
    density = counts / max(counts.sum(), 1) / np.diff(edges)
    quantiles = pairs.quantile(_QUANTILES)
    return {
        "pairs": pairs.pairs,
        "exact": pairs.exact,
        "mean": _finite(pairs.mean),
        "std": _finite(pairs.std),
        "edges": [_rounded(float(edge)) for edge in edges[first : last + 1]],
        "density": [_rounded(float(value)) for value in density[first:last]],
        "quantiles": [[q, _rounded(float(value))] for q, value in zip(_QUANTILES, quantiles.value, strict=True)],
    }


def _lines(content: Mapping[str, Any]) -> list[list[str]]:
    """Name and words of each setting."""
    return [[name.replace("_", " "), _words(value)] for name, value in content.items() if _is_told(value)]


def _is_told(value: Any) -> bool:
    """Whether there is anything to say: no None, and no empty list or dict."""
    return value is not None and (not isinstance(value, list | tuple | Mapping) or bool(value))


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_words(part)}" for name, part in value.items() if _is_told(part))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_words, value)) if isinstance(value, list | tuple) else str(value)


def _rounded(value: float) -> float | None:
    """Eight digits: more than anyone reads off a page, and half the bytes."""
    return float(f"{value:.8g}") if math.isfinite(value) else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
