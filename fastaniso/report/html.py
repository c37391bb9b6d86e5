"""One page with everything in it: markup, style, scripts, figures. It asks nothing of a network."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastaniso.report.payload import payload

if TYPE_CHECKING:
    from fastaniso.runs.naming import Named
    from fastaniso.runs.run import Run

_SCRIPTS = ("words.js", "looks.js", "figures.js", "heads.js", "sections.js", "page.js")


def to_html(runs: Sequence[Run], metrics: Iterable[Named], heads: Iterable[Named], *, title: str | None = None) -> str:
    """The page of these runs. plotly's script, about 4.5 MB, is most of it."""
    heading = title or f"Anisotropy of {', '.join(run.name for run in runs)}"
    parts = {
        "title": html.escape(heading),
        "style": stylesheet(),
        "plotly": _plotly(),
        "script": "\n".join(_asset(name) for name in _SCRIPTS),
        "payload": _embedded(payload(runs, metrics, heads)),
    }
    page = _asset("page.html")
    # One pass over the template: what is filled in may hold anything.
    filled = [piece if i % 2 == 0 else parts[piece] for i, piece in enumerate(page.split("%%"))]
    return "".join(filled)


def stylesheet() -> str:
    """How pages look, in the light and in the dark."""
    return _asset("page.css")


def _embedded(content: Any) -> str:
    """JSON inside a script element, which ends at the first ``</script`` whatever stands around it."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return files("fastaniso.report").joinpath("page", name).read_text(encoding="utf-8")


def _plotly() -> str:
    """The script out of the package: plotly itself, slow to import, is not needed."""
    found = find_spec("plotly")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "a page needs the package plotly, which is not installed: pip install 'fastaniso[html]'", name="plotly"
        )
    script = Path(found.origin).parent / "package_data" / "plotly.min.js"
    return script.read_text(encoding="utf-8")
