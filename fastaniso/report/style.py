"""How every picture looks: one palette that colour-blind readers can tell apart, quiet axes, and no global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"

_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
}


@contextmanager
def styled() -> Iterator[None]:
    """The style inside the ``with``; the caller's own settings are untouched."""
    matplotlib = _matplotlib()
    with matplotlib.rc_context(_STYLE):
        yield


def figure(width: float, height: float) -> Figure:
    """A figure that no window manager knows: it needs no display and is freed like any object."""
    _matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=0.05, hspace=0.06))


def short(text: str, most: int) -> str:
    """The end of a path or of a long list of them."""
    name = PurePath(text)
    tail = "/".join(name.parts[-2:]) if len(name.parts) > 2 else text
    return tail if len(tail) <= most else "…" + tail[1 - most :]


def title(drawn: Figure, first: str, second: str) -> None:
    """A heading and a line under it."""
    drawn.suptitle(f"{first}\n{second}", x=0.01, ha="left", fontsize=10, linespacing=1.5)


def label(axes: Axes, heading: str, x: str, y: str) -> None:
    """Title and axis labels."""
    axes.set_title(heading)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def not_measured(axes: Axes, heading: str) -> None:
    """An empty panel that says why."""
    axes.set_axis_off()
    axes.set_title(heading)
    axes.text(0.5, 0.5, "not measured (gram=False)", transform=axes.transAxes, ha="center", va="center")


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "drawing needs the package matplotlib, which is not installed: pip install 'fastaniso[plot]'",
            name="matplotlib",
        ) from error
    return matplotlib
