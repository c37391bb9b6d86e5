"""Outcomes as one page of HTML, and as Markdown with its pictures beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from fastaniso.paper.claims import Verdict
from fastaniso.paper.experiment import Picture, Table
from fastaniso.paper.outcome import Outcome
from fastaniso.report import stylesheet

PAPER = "Anisotropy Is Inherent to Self-Attention in Transformers"
SOURCE = "Godey, de la Clergerie & Sagot, EACL 2024, arXiv 2401.12143"
_STYLE = """
figure img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption { color: var(--soft); font-size: 0.88rem; max-width: 80ch; margin: 4px 0 18px; }
.verdict { font-weight: 600; white-space: nowrap; }
table.claims { table-layout: fixed; min-width: 860px; }
table.claims th:nth-child(2), table.claims th:nth-child(4) { width: 32%; }
"""


def to_html(outcomes: Sequence[Outcome]) -> str:
    """A page that holds everything it shows, and needs neither a network nor a script."""
    body = [
        f"<header><h1>{escape(PAPER)}, measured</h1>",
        f'<p id="lead">{escape(_lead(outcomes))}</p>',
        "<nav>",
        *(f'<a href="#{o.experiment.name}">{escape(o.experiment.title)}</a>' for o in outcomes),
        "</nav></header><main>",
        *(part for outcome in outcomes for part in _section(outcome)),
        "</main>",
        f"<footer><p>The paper: {escape(SOURCE)}. Its claims are told in our words.</p></footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f'<meta name="color-scheme" content="light dark"><title>{escape(PAPER)}, measured</title>'
        f"<style>{stylesheet()}{_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def to_markdown(outcomes: Sequence[Outcome], images: str, *, note: str = "") -> str:
    """The same in Markdown; ``images`` is the folder, as the page sees it, where ``NAME-PICTURE.png`` are."""
    lines = [f"# {PAPER}, measured", "", *([note, ""] if note else []), _lead(outcomes), ""]
    lines += ["| | claim | verdict |", "| --- | --- | --- |"]
    for outcome in outcomes:
        link = f"[{outcome.experiment.name}](#{outcome.experiment.name})"
        for claim, finding in zip(outcome.experiment.claims, outcome.findings, strict=True):
            lines.append(f"| {link} | {_cell(claim.sentence)} | **{finding.verdict.value}** |")
    for outcome in outcomes:
        experiment = outcome.experiment
        lines += ["", f'<a id="{experiment.name}"></a>', "", f"## {experiment.title}", "", experiment.question, ""]
        lines += [outcome.setting, "", f"`{_command(outcome)}`, {_made(outcome)}.", ""]
        lines += _markdown_table(
            Table("", ("the paper", "claim", "here", "because", "models"), tuple(_claims(outcome))), plain=True
        )
        for picture in outcome.draw():
            lines += ["", f"![{picture.caption}]({images}/{experiment.name}-{picture.name}.png)", ""]
            lines += [f"*{picture.caption}*"]
        for table in outcome.tables():
            lines += ["", f"**{table.caption}**", "", *_markdown_table(table)]
        lines += _skipped_lines(outcome)
    return "\n".join(lines) + "\n"


def _lead(outcomes: Sequence[Outcome]) -> str:
    counts = {verdict: 0 for verdict in Verdict}
    for outcome in outcomes:
        for finding in outcome.findings:
            counts[finding.verdict] += 1
    words = {Verdict.holds: "hold", Verdict.fails: "do not hold", Verdict.untestable: "cannot be tested"}
    verdicts = [f"{count} {words[verdict]}" for verdict, count in counts.items()]
    return (
        f"Of {sum(counts.values())} claims about the geometry of hidden states, on the models and data at hand, "
        f"{', '.join(verdicts[:-1])} and {verdicts[-1]} here. Every verdict rests on a run: what it measured, on which "
        "models, stands beside it."
    )


def _claims(outcome: Outcome) -> Iterable[tuple[str, ...]]:
    for claim, finding in zip(outcome.experiment.claims, outcome.findings, strict=True):
        models = ", ".join(finding.models)
        yield (claim.where, claim.sentence, finding.verdict.value, finding.because, models)


def _command(outcome: Outcome) -> str:
    made = outcome.made_with
    given = [("models", made["models"])] if made["models"] else []
    given += [(name, file) for name in ("text", "images", "sounds", "checkpoints") for file in made.get(name, ())]
    options = "".join(f" --{name} {file}" for name, file in given)
    return f"fastaniso paper {outcome.experiment.name} --size {outcome.size}{options}"


def _made(outcome: Outcome) -> str:
    made = outcome.made_with
    packages = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
    device = f"{made['cores']} cores" if made["device"] == "cpu" else made["device"]
    return f"{outcome.seconds:.0f} s on {device} ({made['machine']}), {packages}"


def _section(outcome: Outcome) -> Iterable[str]:
    experiment = outcome.experiment
    yield f'<section id="{experiment.name}"><h2>{escape(experiment.title)}</h2>'
    yield f"<p>{escape(experiment.question)}</p><p>{escape(outcome.setting)}</p>"
    yield f"<p><code>{escape(_command(outcome))}</code>, {escape(_made(outcome))}.</p>"
    yield '<div class="scroll"><table class="words claims"><thead><tr>'
    yield "".join(f'<th scope="col">{name}</th>' for name in ("the paper", "claim", "here", "because", "models"))
    yield "</tr></thead><tbody>"
    for where, sentence, verdict, because, models in _claims(outcome):
        yield (
            f'<tr><th scope="row">{escape(where)}</th><td>{escape(sentence)}</td>'
            f'<td class="verdict">{verdict}</td><td>{escape(because)}</td><td>{escape(models)}</td></tr>'
        )
    yield "</tbody></table></div>"
    yield from map(_figure, outcome.draw())
    yield from map(_html_table, outcome.tables())
    if outcome.skipped:
        yield "<h3>Not measured</h3><ul class='notes'>"
        yield "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in outcome.skipped.items())
        yield "</ul>"
    yield "</section>"


def _figure(picture: Picture) -> str:
    buffer = io.BytesIO()
    picture.figure.savefig(buffer, format="png", dpi=110)
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    caption = escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{content}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(_shown(first))}</th>'
        + "".join(f"<td>{escape(_shown(cell))}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in table.rows
    )
    return (
        f"<details><summary>{escape(table.caption)}</summary><div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _markdown_table(table: Table, *, plain: bool = False) -> list[str]:
    align = " | ".join("---" if plain or column == 0 else "---:" for column in range(len(table.columns)))
    lines = [f"| {' | '.join(map(_cell, table.columns))} |", f"| {align} |"]
    return lines + [f"| {' | '.join(_cell(_shown(cell)) for cell in row)} |" for row in table.rows]


def _skipped_lines(outcome: Outcome) -> list[str]:
    if not outcome.skipped:
        return []
    return ["", "Not measured:", "", *(f"- {name}: {reason}" for name, reason in outcome.skipped.items())]


def _shown(cell: str | float | int | None) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.3g}" if cell and not 1e-3 <= abs(cell) < 1e4 else f"{cell:.3f}"
    return str(cell)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def save_pictures(outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """The pictures that the Markdown page shows."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for outcome in outcomes:
        for picture in outcome.draw():
            written.append(folder / f"{outcome.experiment.name}-{picture.name}.png")
            picture.figure.savefig(written[-1], dpi=90)
    return written
