"""What a run of an experiment leaves: one JSON file, and all that follows from it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import fastaniso
from fastaniso.paper.claims import Finding, Verdict
from fastaniso.paper.experiment import Experiment, Measured, Picture, Table
from fastaniso.paper.options import Options

FILE = "outcome.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Outcome:
    """The measurements of an experiment, and where and how long they were made."""

    experiment: Experiment
    measured: Measured
    size: str
    seconds: float
    made_with: dict[str, Any]

    @property
    def setting(self) -> str:
        """What was done on what, in a few sentences."""
        return self.experiment.setting(self.measured)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """A verdict on every claim of the experiment, in their order."""
        found = {finding.key: finding for finding in self.experiment.judge(self.measured)}
        unknown = found.keys() - {claim.key for claim in self.experiment.claims}
        if unknown:
            raise ValueError(f"{self.experiment.name}: findings on no claim: {', '.join(sorted(unknown))}")
        return tuple(
            found.get(claim.key, Finding(claim.key, Verdict.untestable, "not measured in this run"))
            for claim in self.experiment.claims
        )

    @property
    def skipped(self) -> dict[str, str]:
        """What was asked for and could not be measured, with the reason."""
        return dict(self.measured.get("skipped", {}))

    def tables(self) -> Sequence[Table]:
        """The measurements as tables."""
        return self.experiment.tables(self.measured)

    def draw(self) -> Sequence[Picture]:
        """The measurements as pictures. Needs matplotlib: ``pip install 'fastaniso[plot]'``."""
        return self.experiment.draw(self.measured)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict, findings included for whoever reads the file alone."""
        return {
            "kind": "paper",
            "format": FORMAT_VERSION,
            "experiment": self.experiment.name,
            "size": self.size,
            "seconds": self.seconds,
            "made_with": self.made_with,
            "claims": [asdict(claim) for claim in self.experiment.claims],
            "findings": [asdict(finding) for finding in self.findings],
            "measured": dict(self.measured),
        }

    def save(self, out: Path) -> list[Path]:
        """Write ``out/NAME/outcome.json`` and ``out/NAME/figures/*.png``; the paths."""
        folder = out / self.experiment.name
        pictures = folder / "figures"
        pictures.mkdir(parents=True, exist_ok=True)
        file = folder / FILE
        temporary = folder / f".{FILE}.{os.getpid()}"
        temporary.write_text(
            json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )
        os.replace(temporary, file)
        written = [file]
        for picture in self.draw():
            written.append(pictures / f"{picture.name}.png")
            picture.figure.savefig(written[-1], dpi=110)
        return written


def load_outcomes(out: Path, experiments: Sequence[Experiment]) -> list[Outcome]:
    """The outcomes that runs left under ``out``, in the order of ``experiments``."""
    found = []
    for experiment in experiments:
        file = out / experiment.name / FILE
        if not file.is_file():
            continue
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.get("kind") != "paper" or content.get("format") != FORMAT_VERSION:
            raise ValueError(f"{file}: not an outcome of this version; delete it and run {experiment.name} again")
        found.append(
            Outcome(experiment, content["measured"], content["size"], content["seconds"], content["made_with"])
        )
    return found


def made_with(options: Options) -> dict[str, Any]:
    """The files, versions and machine that measurements depend on."""
    packages = {"fastaniso": fastaniso.__version__, "torch": torch.__version__}
    for name in ("transformers", "numpy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    files = {
        name: [path.name for path in getattr(options, name)] for name in ("text", "images", "sounds", "checkpoints")
    }
    return {
        "models": None if options.models is None else options.models.name,
        **{name: names for name, names in files.items() if names},
        "packages": packages,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
    }
