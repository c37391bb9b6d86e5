"""Where numbers of a training run go: one small interface, and files, TensorBoard and Weights & Biases behind it."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fastaniso.result import json_ready

COLUMNS = ("step", "metric", "site", "value")


class Logger(Protocol):
    """What ``Watch`` and the callbacks write to; any object with these two methods is one."""

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Write numbers by ``metric/site`` of one step; they may be nan."""

    def close(self) -> None:
        """Write what is held back, and let go of files."""


class JSONLLogger:
    """One line of JSON a step: ``{"step": 10, "mean_cosine/block.0": 0.31, ...}``; nan becomes null.

    Lines are appended and reach the file at once, so that a run that is killed keeps what it has logged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Append to ``path``; its folder is made where it is missing."""
        self._path = _ready(path)

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Append a line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(json_ready({"step": step, **scalars}), ensure_ascii=False, allow_nan=False) + "\n")

    def close(self) -> None:
        """Nothing is held back."""


class CSVLogger:
    """One line a number: ``step,metric,site,value``, so that runs may log other sites than the last one did."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Append to ``path``; refuses a file of other columns."""
        self._path = _ready(path)
        if self._path.exists() and self._path.stat().st_size:
            with self._path.open(newline="", encoding="utf-8") as file:
                header = tuple(next(csv.reader(file), ()))
            if header != COLUMNS:
                raise ValueError(
                    f"path: {path} has the columns {', '.join(header)}, expected {', '.join(COLUMNS)}; "
                    "give another file"
                )

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Append a line a number."""
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if file.tell() == 0:
                writer.writerow(COLUMNS)
            writer.writerows([step, *_metric_and_site(name), repr(value)] for name, value in scalars.items())

    def close(self) -> None:
        """Nothing is held back."""


class TensorBoardLogger:
    """Scalars by ``metric/site``: TensorBoard shows a metric's sites side by side. Needs tensorboard."""

    def __init__(self, folder: str | os.PathLike[str], *, prefix: str = "") -> None:
        """Write event files to ``folder``."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("TensorBoardLogger", "tensorboard") from error
        self._writer: Any = SummaryWriter(os.fspath(folder))
        self._prefix = prefix

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Add a point to each curve."""
        for name, value in scalars.items():
            self._writer.add_scalar(self._prefix + name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WandbLogger:
    """Numbers of a Weights & Biases run as ``fastaniso/metric/site`` over ``fastaniso/step``. Needs wandb.

    An axis of their own, because a run takes no step twice or in another order, and others log to it, too.
    """

    def __init__(self, run: Any = None, *, prefix: str = "fastaniso/") -> None:
        """Log to ``run``, by default the one that ``wandb.init`` has begun, which stays the caller's to finish."""
        try:
            import wandb
        except ImportError as error:
            raise _missing("WandbLogger", "wandb") from error
        self._run: Any = wandb.run if run is None else run
        if self._run is None:
            raise ValueError("run: no run of Weights & Biases has begun; call wandb.init(...) first, or pass its run")
        self._prefix = prefix
        self._run.define_metric(f"{prefix}step")
        self._run.define_metric(f"{prefix}*", step_metric=f"{prefix}step")

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Log all numbers at once."""
        self._run.log({f"{self._prefix}step": step, **{self._prefix + name: v for name, v in scalars.items()}})

    def close(self) -> None:
        """The run goes on: who began it finishes it."""


def _ready(path: str | os.PathLike[str]) -> Path:
    ready = Path(path)
    ready.parent.mkdir(parents=True, exist_ok=True)
    return ready


def _metric_and_site(name: str) -> tuple[str, str]:
    metric, _, site = name.partition("/")
    return metric, site


def _missing(what: str, package: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"{what} needs the package {package}, which is not installed: pip install {package}", name=package
    )
