"""The frame of the paper's experiments: what is told follows from what was measured, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fastaniso.cli import app
from fastaniso.paper import (
    Claim,
    Experiment,
    Finding,
    Options,
    Outcome,
    Picture,
    Table,
    Verdict,
    experiments,
    load_outcomes,
    run,
    to_html,
    to_markdown,
)
from fastaniso.report import figure, label, styled

CLAIMS = (Claim("grows", "§1", "Numbers grow <fast> & far."), Claim("other", "§2", "Something else | holds."))


def measure(options: Options) -> dict[str, Any]:
    options.say("counting")
    return {"numbers": [1, 2.5, 12345.678], "skipped": {"a/model": "there is <no> such model"}}


def judge(measured: Any) -> list[Finding]:
    grows = measured["numbers"][0] < measured["numbers"][-1]
    verdict = Verdict.holds if grows else Verdict.fails
    return [Finding("grows", verdict, f"from {measured['numbers'][0]} to {measured['numbers'][-1]}", ("counter",))]


def draw(measured: Any) -> list[Picture]:
    with styled():
        drawn = figure(4, 3)
        axes = drawn.subplots()
        axes.plot(measured["numbers"])
        label(axes, "Numbers", "place", "number")
    return [Picture("numbers", "Numbers over their places.", drawn)]


COUNTING = Experiment(
    name="counting",
    title="Counting & more",
    question="Do numbers grow?",
    claims=CLAIMS,
    measure=measure,
    setting=lambda measured: f"{len(measured['numbers'])} numbers.",
    judge=judge,
    tables=lambda measured: [Table("Numbers", ("place", "number"), tuple(enumerate(measured["numbers"])))],
    draw=draw,
)


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    return run(COUNTING, Options(out=tmp_path, text=(Path("some/words.txt"),)))


class Tags(HTMLParser):
    """Whether every element is closed by its own end, and what there is to read."""

    EMPTY = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_run_is_told_again_from_its_json(outcome: Outcome, tmp_path: Path) -> None:
    (again,) = load_outcomes(tmp_path, [COUNTING])
    assert again.to_dict() == outcome.to_dict()
    assert to_html([again]) == to_html([outcome])
    content = json.loads((tmp_path / "counting" / "outcome.json").read_text())
    assert content["findings"][0] == {
        "key": "grows",
        "verdict": "holds",
        "because": "from 1 to 12345.678",
        "models": ["counter"],
    }
    assert (tmp_path / "counting" / "figures" / "numbers.png").stat().st_size > 1000


def test_verdicts_follow_the_measurements(outcome: Outcome) -> None:
    other = replace(outcome, measured={**outcome.measured, "numbers": [3, 2, 1]})
    assert [finding.verdict for finding in other.findings] == [Verdict.fails, Verdict.untestable]
    assert outcome.findings[1].because == "not measured in this run"


def test_a_finding_needs_a_claim(outcome: Outcome) -> None:
    without = replace(outcome, experiment=replace(COUNTING, claims=CLAIMS[1:]))
    with pytest.raises(ValueError, match="counting: findings on no claim: grows"):
        _ = without.findings


def test_html(outcome: Outcome) -> None:
    page = to_html([outcome])
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    for said in (
        "Of 2 claims",
        "1 hold, 0 do not hold and 1 cannot be tested here",
        "Numbers grow <fast> & far.",
        "a/model: there is <no> such model",
        "12345.678",
        "fastaniso paper counting --size small --text words.txt",
    ):
        assert said in tags.text, said
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png;base64,") == 1


def test_markdown(outcome: Outcome) -> None:
    page = to_markdown([outcome], "images/paper", note="Written by a machine.")
    assert "| [counting](#counting) | Something else \\| holds. | **not testable here** |" in page
    assert "![Numbers over their places.](images/paper/counting-numbers.png)" in page
    assert "| 2 | 1.23e+04 |" in page
    assert "- a/model: there is <no> such model" in page


def test_names() -> None:
    with pytest.raises(ValueError, match=r"experiment: expected one of layers, drift, .*, got layer"):
        experiments("layer")


def test_an_outcome_of_another_version_is_refused(outcome: Outcome, tmp_path: Path) -> None:
    file = tmp_path / "counting" / "outcome.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(ValueError, match=r"outcome\.json: not an outcome of this version; delete it"):
        load_outcomes(tmp_path, [COUNTING])


def test_the_page_of_nothing_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["paper", "page", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "there are no outcomes" in result.output
