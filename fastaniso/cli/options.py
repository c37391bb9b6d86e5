"""Options that several commands take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Dtype(StrEnum):
    """Dtypes a model can be loaded in."""

    auto = "auto"
    float32 = "float32"
    float64 = "float64"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Backend(StrEnum):
    """Kernels that can be asked for."""

    auto = "auto"
    triton = "triton"
    cpu = "cpu"
    reference = "reference"


class Size(StrEnum):
    """How much the experiments of the paper measure."""

    smoke = "smoke"
    small = "small"
    full = "full"


def place(value: str) -> str:
    """A file or folder that is there, or a URL, which is asked for when it is opened."""
    if "://" not in value and not Path(value).exists():
        raise typer.BadParameter(f"Path {value!r} does not exist.")
    return value


GramOption = Annotated[
    bool, typer.Option(help="Also the std of the cosine and the spectral scores (O(d²) memory a site).")
]
TensorOption = Annotated[str | None, typer.Option(help="Name of the tensor, where a file holds several.")]
ColumnOption = Annotated[str | None, typer.Option(help="Name of the column, where a table holds several.")]
PairsOption = Annotated[
    bool, typer.Option("--pairs", help="Also histogram, quantiles, extrema and shape over all pairs, O(n²).")
]
BinsOption = Annotated[int, typer.Option(min=64, max=8192, help="Bins of the histogram.")]
ThresholdOption = Annotated[
    list[float] | None, typer.Option(min=-1, max=1, help="Share of pairs above this cosine; may be repeated.")
]
UniformityOption = Annotated[float, typer.Option(help="The t of the uniformity.")]
NeighborsOption = Annotated[
    int | None, typer.Option(min=1, max=128, metavar="K", help="Also the K nearest neighbours of each row, O(n²).")
]
KernelOption = Annotated[Backend, typer.Option(help="Kernel; an error where it cannot run.")]
OmitOption = Annotated[
    bool, typer.Option("--omit-invalid", help="Leave out zero, NaN and Inf rows instead of failing.")
]
MemoryOption = Annotated[str | None, typer.Option(metavar="BYTES", help='Fail before starting above this: "2 GB".')]
OutOption = Annotated[
    Path | None, typer.Option(metavar="DIR", file_okay=False, help="Write JSON, states and plots here.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
