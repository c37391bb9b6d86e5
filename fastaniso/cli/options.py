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


def place(value: str) -> str:
    """A file or folder that is there, or a URL, which is asked for when it is opened."""
    if "://" not in value and not Path(value).exists():
        raise typer.BadParameter(f"Path {value!r} does not exist.")
    return value


GramOption = Annotated[
    bool, typer.Option(help="Also the std of the cosine and the spectral scores (O(d²) memory a site).")
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
