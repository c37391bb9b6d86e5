"""``fastaniso paper all`` from the command line, at its smallest size: every experiment, one page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from fastaniso.paper import Verdict, load_outcomes, to_html, to_markdown
from fastaniso.paper.untrained_block import EXPERIMENT as UNTRAINED_BLOCK
from fastaniso.paper.untrained_block.curves import fixed_points

TEXT = Path(__file__).parent.parent / "examples" / "jargon-excerpt.txt"
EXPERIMENTS = ("layers", "drift", "untrained-block", "training", "counterpoint")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("paper")


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastaniso", "paper", "all", "--size", "smoke", "--text", str(TEXT)]
    return subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True, timeout=300)


def test_everything_runs_and_is_told(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode == 0, done.stderr[-2000:]
    page = (folder / "paper.html").read_text(encoding="utf-8")
    for name in EXPERIMENTS:
        outcome = json.loads((folder / name / "outcome.json").read_text(encoding="utf-8"))
        assert outcome["size"] == "smoke"
        assert list((folder / name / "figures").glob("*.png"))
        assert f'<section id="{name}">' in page
        for claim, finding in zip(outcome["claims"], outcome["findings"], strict=True):
            assert f"{name}: {finding['verdict']}: {claim['sentence']}" in done.stdout
            assert finding["because"]
        for left_out, reason in outcome["measured"].get("skipped", {}).items():
            assert f"{name}: skipped {left_out}: {reason}" in done.stdout
    for seed in (1, 2):
        assert f"untrained-block: seed {seed} of 2, 6 norms of the bias" in done.stderr
    assert "untrained-block: BERT's cosines at three norms of the bias, further seeds: 1" in done.stderr


@pytest.mark.usefixtures("done")
def test_the_untrained_block(folder: Path) -> None:
    (outcome,) = load_outcomes(folder, [UNTRAINED_BLOCK])
    # What is kept is all that verdicts are made of.
    kept = json.loads((folder / "untrained-block" / "outcome.json").read_text(encoding="utf-8"))["findings"]
    assert [finding["verdict"] for finding in kept] == [finding.verdict for finding in outcome.findings]
    found = {finding.key: finding.verdict for finding in outcome.findings}
    # What a block of random weights does at any length; the rest is for sizes with more seeds.
    assert found["fixed-point"] == found["spread"] == found["softmax"] == found["queries-keys"] == Verdict.holds
    assert found["attention"] == Verdict.holds
    assert found["pre-norm"] == found["sharp-at-fixed-point"] == Verdict.fails
    assert fixed_points(outcome.measured, "bert") == pytest.approx([768**0.5] * 2, rel=5e-3)
    checked = outcome.measured["float64"]["differences"]
    assert checked["cosine"] < 1e-7  # float32 rows of norm 28 are off by 1e-6, and a mean over pairs by less
    assert max(checked.values()) < 0.02
    for path in (folder / "untrained-block" / "figures").glob("*.png"):
        assert 5_000 < path.stat().st_size < 300_000, path.name
    for page in (to_html([outcome]), to_markdown([outcome], "images")):
        assert "30,522 embeddings" in page
        assert "known: range of four other seeds in float64" in page
    assert max(len(table.rows) for table in outcome.tables()) <= 30
