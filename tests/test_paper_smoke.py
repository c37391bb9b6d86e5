"""``fastaniso paper all`` from the command line, at its smallest size: every experiment, one page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

TEXT = Path(__file__).parent.parent / "examples" / "jargon-excerpt.txt"
EXPERIMENTS = ("layers", "drift", "untrained-block", "training", "counterpoint")


def test_everything_runs_and_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fastaniso", "paper", "all", "--size", "smoke", "--text", str(TEXT)]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    page = (tmp_path / "paper.html").read_text(encoding="utf-8")
    for name in EXPERIMENTS:
        outcome = json.loads((tmp_path / name / "outcome.json").read_text(encoding="utf-8"))
        assert outcome["size"] == "smoke"
        assert list((tmp_path / name / "figures").glob("*.png"))
        assert f'<section id="{name}">' in page
        for claim, finding in zip(outcome["claims"], outcome["findings"], strict=True):
            assert f"{name}: {finding['verdict']}: {claim['sentence']}" in done.stdout
            assert finding["because"]
        for left_out, reason in outcome["measured"].get("skipped", {}).items():
            assert f"{name}: skipped {left_out}: {reason}" in done.stdout
