"""``fastaniso paper``: the experiments of the paper, and the page of what came out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fastaniso.cli.ending import reported
from fastaniso.cli.machine import check_device, silence_transformers
from fastaniso.cli.options import DebugOption, QuietOption, Size

PAGE = "paper.html"


def register(app: typer.Typer, epilog: str) -> None:
    """Put the command into ``app``."""
    app.command(epilog=epilog)(paper)


def paper(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPERIMENT...",
            help="layers, drift, untrained-block, training, counterpoint; all; or page, which measures nothing.",
        ),
    ],
    size: Annotated[
        Size, typer.Option(help="smoke: seconds, to see that it runs; small: minutes on two cores; full: a GPU.")
    ] = Size.small,
    models: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Models to measure, a hub id or path a line."),
    ] = None,
    text: Annotated[list[Path] | None, typer.Option(metavar="FILE", exists=True, help="Text; may be repeated.")] = None,
    images: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", exists=True, help="Images; may be repeated.")
    ] = None,
    sounds: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", exists=True, help="Sounds; may be repeated.")
    ] = None,
    checkpoints: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, help="Checkpoints of a training, in place of one of our own."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds, by default as many as the size says.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default a GPU if there is one.")] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", file_okay=False, help="Write here; a run that stopped goes on.")
    ] = Path("paper-out"),
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Reproduce "Anisotropy Is Inherent to Self-Attention in Transformers" (EACL 2024) on the models at hand.

    Each experiment writes JSON and figures, and says of every claim of the paper whether it holds, does not hold, or
    cannot be tested here. One page, paper.html, tells all that were run.
    """
    with reported(debug):
        from fastaniso.paper import Options, experiments, load_outcomes, run, to_html
        from fastaniso.paper import Size as Sizes

        silence_transformers()
        check_device(device)
        every = experiments()
        wanted = every if "all" in names else () if names == ["page"] else experiments(*names)
        options = Options(
            size=Sizes(size.value),
            out=out,
            models=models,
            text=tuple(text or ()),
            images=tuple(images or ()),
            sounds=tuple(sounds or ()),
            checkpoints=tuple(checkpoints or ()),
            seeds=seeds,
            device=device,
            say=(lambda line: None) if quiet else (lambda line: print(line, file=sys.stderr)),
        )
        for experiment in wanted:
            outcome = run(experiment, options)
            claims = {claim.key: claim.sentence for claim in experiment.claims}
            for finding in outcome.findings:
                print(f"{experiment.name}: {finding.verdict.value}: {claims[finding.key]} ({finding.because})")
            for name, reason in outcome.skipped.items():
                print(f"{experiment.name}: skipped {name}: {reason}")
        outcomes = load_outcomes(out, every)
        if not outcomes:
            raise typer.BadParameter(f"there are no outcomes under {out}", param_hint="--out")
        (out / PAGE).write_text(to_html(outcomes), encoding="utf-8")
        print(f"wrote {out / PAGE}", file=sys.stderr)
