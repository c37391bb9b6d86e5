"""The model of work over ranks: it counts what the ring does, meets what was measured, and stands in the document."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import scaling_model as model

DOCUMENT = Path(__file__).parents[1] / "docs" / "scaling.md"


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7, 8, 64])
def test_ranks_form_every_pair_once(ranks: int) -> None:
    """With nothing but products to do, W ranks take a W-th of one."""
    free = replace(model.GPU, per_number=0, link=math.inf, node_link=math.inf, latency=0, round=0, step=0)
    alone = model.seconds(free, 64_000, 768, 1)
    assert alone == pytest.approx(64_000 * 63_999 / 2 * 768 / free.rate, rel=1e-12)
    assert ranks * model.seconds(free, 64_000, 768, ranks) == pytest.approx(alone, rel=1e-12)


def test_a_slow_link_is_what_takes_long() -> None:
    """Once messages take longer than tiles: ⌊W/2⌋ of them, and the last tile."""
    slow = replace(model.GPU, node_link=1e6, per_number=0, latency=0, round=0, step=0)
    rows, steps = 64_000 / 16, 8
    last = rows * rows / 2 * 768 / slow.rate
    assert model.seconds(slow, 64_000, 768, 16) == pytest.approx(steps * rows * 768 * 2 / 1e6 + last, rel=1e-12)
    # Within a node it does not matter.
    assert model.seconds(slow, 64_000, 768, 8) < 0.01


@pytest.mark.parametrize("case", model.MEASURED, ids=lambda case: f"{case.n}x{case.d}-{case.ranks}")
def test_it_meets_what_was_measured(case: model.Measured) -> None:
    assert model.seconds(model.CPU, case.n, case.d, case.ranks) == pytest.approx(case.each, rel=0.04)
    assert model.seconds(model.CPU, case.n, case.d, 1) == pytest.approx(case.alone, rel=0.04)
    measured = case.alone / case.ranks / case.each
    assert model.efficiency(model.CPU, case.n, case.d, case.ranks) == pytest.approx(measured, abs=0.025)


@pytest.mark.parametrize("ranks", [8, 64])
def test_rows_for_an_efficiency(ranks: int) -> None:
    enough = model.rows_for(model.GPU, 768, ranks)
    assert model.efficiency(model.GPU, enough, 768, ranks) == pytest.approx(0.9, rel=1e-6)
    assert model.efficiency(model.GPU, 2 * enough, 768, ranks) > 0.9


def test_a_pass_is_bound_by_reading() -> None:
    taken, reading = model.pass_seconds(model.GPU, 1e8, 768, 16, gram=True)
    assert reading == pytest.approx(1e8 * 768 * 2 / (2 * model.GPU.storage_of_node))
    merging = 8 * (model.GPU.round + model.GPU.latency + 8 * 768 * (2 * 768 + 4) / model.GPU.node_link)
    assert taken == pytest.approx(reading + merging)


def test_the_document_is_current() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    written = text.split(model.BEGIN)[1].split(model.END)[0].strip()
    assert written == model.section(), "python -m bench.scaling_model docs/scaling.md"


def test_the_rates_of_a_machine_can_be_measured() -> None:
    command = [sys.executable, "-m", "bench.scaling_rates", "--quick"]
    done = subprocess.run(command, cwd=DOCUMENT.parents[1], capture_output=True, text=True, check=True)
    names = re.findall(r"(\S+) = -?\d|(link) \d", done.stdout)
    assert [name or link for name, link in names] == ["R", "e", "c", "r", "s", "link", "1/q"]
