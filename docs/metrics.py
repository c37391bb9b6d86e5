"""Write docs/metrics.md from the catalogue and the docstrings: python docs/metrics.py"""

from __future__ import annotations

import inspect
from pathlib import Path

import fastaniso
from fastaniso import Metric

PAGE = Path(__file__).parent / "metrics.md"

INTRODUCTION = """\
# Metrics

Written by `python docs/metrics.py` from `fastaniso.metrics()` and the docstrings; not edited by hand.

Every metric is a function of its name on rows, and a name that `describe` takes:

```python
fastaniso.rankme(hidden)                                            # one number
fastaniso.describe(hidden, metrics=["rankme", "isoscore", "mev"])   # several, from one pass
fastaniso.describe(hidden, metrics=["mev", ("mev", {"legacy": "centered"})]).metrics    # a paper's beside the right one
fastaniso.describe(hidden, metrics="all")                           # also visits every pair of rows
fastaniso.Accumulator(metrics=["rankme"])                           # batch by batch
print(fastaniso.metrics())                                          # this list
```

Notation: n rows x of d numbers, u = x/|x|, c the cosine of a pair of rows, s = sum u, C the covariance over n,
lambda its eigenvalues, sigma the singular values of the rows. `conventions` of a result hold the options of its values.
"""

TRAPS = """\
## What published code gets wrong, in numbers

Each figure is computed in `tests/test_spectrum_packages.py`, the last in `tests/test_statistics.py`. A: 4,000 rows of
64 numbers, normal, the k-th of standard deviation 1/sqrt(k), plus 3. B: 500 standard normal rows of 64 numbers. P: 300
rows of 64 numbers in 3 dimensions.

| metric | what is done | rows | it gives | instead of |
| --- | --- | --- | --- | --- |
| RankMe | singular values of centred rows (`legacy="centered"`) | A | 54.72 | 8.65 |
| RankMe | their squares (`legacy="eigenvalues"`) | A | 28.51 | 8.65 |
| MEV | scikit-learn's PCA, which takes the mean away (`legacy="centered"`) | A | .213 | .992 |
| participation ratio | second moments in place of covariances (`center=False`) | A | 1.02 | 13.46 |
| alpha-ReQ | ranks weighted by 1/rank (`legacy="weighted"`), ranks 10 to 60 | A | 1.016 | 1.021 |
| IsoScore* | C0 = I whatever the scale (`legacy="identity"`), rows A, and A divided by 1,000 | A | .831, 1.000 | .283 |
| IsoScore | package `IsoScore` 2.0.1, square roots of d in float32 | A | within 1e-7 | .198 |
| self-clustering | pairs i = j counted | B | .00192 | -.00008 |
| participation ratio | n < 10 d (`corrected=True` for normal rows) | B | 56.9 | 64 |
| condition number | `numpy.linalg.cond` of the covariance of rows in a plane | P | 1e17 and more | inf |
| spectral entropy | divided by the log of the number of eigenvalues that are not 0 | P | .996 | .263 |
| mean cosine | torchmetrics' `pairwise_cosine_similarity(x).mean()` | any | (n-1)/n times | the mean |
"""


def page() -> str:
    """The whole page."""
    metrics = fastaniso.metrics().values()
    return "\n".join((INTRODUCTION, _table(list(metrics)), TRAPS, *map(_section, metrics)))


def _table(metrics: list[Metric]) -> str:
    rows = [
        ("metric", "structure", "range", "cost", "source"),
        ("---",) * 5,
        *((f"[`{m.name}`](#{m.name})", m.structure, m.range, m.cost, m.source) for m in metrics),
    ]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def _section(metric: Metric) -> str:
    function = getattr(fastaniso, metric.name)
    options = ", ".join(f"{name}={value!r}" for name, value in metric.options.items())
    lines = [f"### {metric.name}", "", f"`{metric.convention}`", ""]
    if options:
        lines += [f"Options: `{options}`.", ""]
    if metric.also:
        lines += [f"Also known as {', '.join(metric.also)}.", ""]
    return "\n".join((*lines, "```text", inspect.getdoc(function) or "", "```", ""))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
