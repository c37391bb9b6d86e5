"""A report on one or several runs: one page that needs no network, and the same figures by matplotlib."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastaniso.runs.attention import HEADS, head_convention, head_label, head_names, is_signed
from fastaniso.runs.naming import Named, named_metrics
from fastaniso.runs.reading import load_run
from fastaniso.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("drift", "spectrum", "top_dimensions", "pairs")


class Report:
    """Runs side by side: ``plot("mean_cosine")``, ``plot("drift")``, …; ``to_html()`` and ``save_html("out.html")``."""

    def __init__(self, runs: Sequence[Run]) -> None:
        """In the order given; runs of one name are numbered."""
        if not runs:
            raise ValueError("runs: expected at least one, got none")
        names = Counter(run.name for run in runs)
        seen: Counter[str] = Counter()
        self.runs: tuple[Run, ...] = ()
        for run in runs:
            seen[run.name] += 1
            name = f"{run.name} ({seen[run.name]})" if names[run.name] > 1 else run.name
            self.runs += (replace(run, name=name),)

    @property
    def metrics(self) -> tuple[Named, ...]:
        """The metrics that any site of any run has: what ``plot`` draws over the layers."""
        return named_metrics(self.runs)

    @property
    def heads(self) -> tuple[Named, ...]:
        """What any run says of queries, keys and attention head by head: ``plot`` draws it as a heat map."""
        names = head_names(tuple(attention for run in self.runs for attention in run.attentions))
        told = {name: text for run in self.runs for name, text in run.conventions.items()}
        return tuple(
            Named(f"{HEADS}{name}", head_label(name), "signed" if is_signed(name) else "", head_convention(name, told))
            for name in names
        )

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites of all runs, those of the first run first."""
        return tuple(dict.fromkeys(site.site for run in self.runs for site in run.own_sites))

    def plot(self, what: str, *, site: str | None = None) -> Figure:
        """A figure, not shown: ``figure.savefig("out.svg")`` writes it. Needs ``pip install 'fastaniso[plot]'``.

        Args:
            what: A metric over the layers, as ``metrics`` names them; a value of each head, as ``heads`` does; "drift"
                against the mean cosine; "spectrum" or "top_dimensions" of a site; "pairs", the distribution of the
                cosine in the run that has it.
            site: For "spectrum" and "top_dimensions": by default the last site that is a layer.
        """
        from fastaniso import report

        if what == "drift":
            return report.plot_drift(self.runs)
        if what in ("spectrum", "top_dimensions"):
            draw = report.plot_spectrum if what == "spectrum" else report.plot_top_dimensions
            return draw(self.runs, self._site(site))
        if what == "pairs":
            held = [run.pairs for run in self.runs if run.pairs is not None]
            if len(held) != 1:
                raise ValueError(f"what: 'pairs' draws the one run that has pairs, and {len(held)} of these have")
            return report.plot_pairs(held[0])
        for metric in self.metrics:
            if metric.name == what:
                return report.plot_metric(self.runs, metric.name, metric.label, metric.convention)
        for metric in self.heads:
            if metric.name == what:
                name = what.removeprefix(HEADS)
                return report.plot_heads(self.runs, name, metric.label, signed=is_signed(name))
        names = ", ".join((*FIGURES, *(metric.name for metric in (*self.metrics, *self.heads))))
        raise ValueError(f"what: no figure {what!r}; there are {names}")

    def to_html(self, *, title: str | None = None) -> str:
        """The page: everything it shows and runs is in it. Needs ``pip install 'fastaniso[html]'``."""
        from fastaniso.report import to_html

        return to_html(self.runs, self.metrics, self.heads, title=title)

    def save_html(self, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
        """Write ``to_html`` to ``path``."""
        path = Path(path)
        path.write_text(self.to_html(title=title), encoding="utf-8")
        return path

    def _site(self, site: str | None) -> str:
        if site is None:
            return [s.site for s in self.runs[0].own_sites if s.is_layer][-1]
        if site not in self.sites:
            raise ValueError(f"site: no run has {site!r}; there are {', '.join(self.sites)}")
        return site


def load_report(*runs: str | os.PathLike[str] | Run) -> Report:
    """A report on folders that ``scan`` or ``measure`` wrote: ``load_report("a", "b").save_html("out.html")``.

    One page with the curves of every metric over the layers, drift against anisotropy, spectra, top dimensions, cosines
    of all pairs where they were measured, and what each run was made from; the same figures by ``plot``.
    """
    return Report([run if isinstance(run, Run) else load_run(run) for run in runs])
