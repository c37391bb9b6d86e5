"""The experiment drift: correlations and verdicts from hand-made figures, and over the stages of one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paper_records import line, measured, record

import fastaniso
from fastaniso.paper import Verdict
from fastaniso.paper.drift.experiment import EXPERIMENT
from fastaniso.paper.drift.judging import judge, pearson, rises_together

COSINES = [0.1, 0.2, 0.35, 0.3, 0.5]
DRIFTS = [1.0, 4.0, 2.0, 8.0, 5.0]


def verdicts(*records: dict[str, Any]) -> dict[str, Verdict]:
    return {finding.key: finding.verdict for finding in judge(measured(*records))}


def test_pearson_is_numpys() -> None:
    assert pearson(line(COSINES, drifts=DRIFTS)) == pytest.approx(np.corrcoef(DRIFTS, COSINES)[0, 1], rel=1e-12)
    assert pearson(line(COSINES, drifts=[1.0] * 5)) is None
    # After a final norm is no layer.
    five = line([*COSINES, -1.0], drifts=[*DRIFTS, 100.0])
    five["is_layer"][-1] = False
    assert pearson(five) == pytest.approx(np.corrcoef(DRIFTS, COSINES)[0, 1], rel=1e-12)


@pytest.mark.parametrize(
    ("rho", "p", "expected"), [(0.9, 0.01, True), (0.9, 0.2, False), (-0.9, 0.01, False), (None, None, False)]
)
def test_rising_together_takes_a_positive_and_significant_rank_correlation(
    rho: float | None, p: float | None, expected: bool
) -> None:
    assert rises_together(line(COSINES, rho=rho, p=p)) is expected


def test_verdicts_turn_with_the_correlations() -> None:
    together = record("a", "subword", line(COSINES))
    apart = record("b", "subword", line(COSINES, rho=-0.3, p=0.7))
    assert verdicts(together)["not-always"] is Verdict.fails
    assert verdicts(together, apart)["not-always"] is Verdict.holds
    assert verdicts(together)["often"] is Verdict.holds
    assert verdicts(together, apart)["often"] is Verdict.fails
    networks = {"together": line(COSINES), "apart": line(COSINES, rho=0.1, p=0.9)}
    assert verdicts(record("c", "convolutional", networks["apart"]))["convolutional"] is Verdict.holds
    assert verdicts(record("c", "convolutional", networks["together"]))["convolutional"] is Verdict.fails


def test_the_share_is_compared_with_the_drift() -> None:
    closer, looser = line(COSINES, drifts=DRIFTS), line(COSINES, drifts=COSINES)
    closer["relative_drift"], looser["relative_drift"] = COSINES, DRIFTS
    assert verdicts(record("a", "subword", closer))["relative"] is Verdict.holds
    assert verdicts(record("a", "subword", looser))["relative"] is Verdict.fails


def test_untrained_models_are_a_control_alone() -> None:
    controls = [record("a", "subword", line(COSINES), trained=False)]
    assert verdicts(*controls)["untrained"] is Verdict.holds
    assert verdicts(*controls)["not-always"] is verdicts(*controls)["often"] is Verdict.untestable
    controls.append(record("b", "vision", line(COSINES, rho=0.2, p=0.8), trained=False))
    assert verdicts(*controls)["untrained"] is Verdict.fails


def test_too_few_layers_tell_nothing() -> None:
    few = record("a", "subword", line([0.1, 0.2, 0.3, 0.4], rho=1.0, p=1 / 12))
    assert verdicts(few)["not-always"] is Verdict.untestable


def test_tables_and_pictures_of_figures_that_lack() -> None:
    some = measured(record("a", "subword", line([None, *COSINES], rho=None, p=None)))
    (table,) = EXPERIMENT.tables(some)
    assert table.rows[0][:4] == ("a", 6, None, None)
    assert [picture.name for picture in EXPERIMENT.draw(some)] == ["trained"]


def test_the_stages_of_a_model_are_correlated_together(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the model is transformers'")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(hidden_sizes=[8, 16, 16, 16], num_attention_heads=[1, 2, 2, 2])
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = transformers.SegformerModel(config).eval()
    fastaniso.scan(model, [{"pixel_values": pixels}], gram=False).save(tmp_path, pictures=False)
    found = fastaniso.load_run(tmp_path)
    assert [each.n for each in found.drift_correlation().values()] == [3, 3, 3, 3]
    (together,) = found.drift_correlation(together=True).values()
    layers = [site.values for site in found.own_sites if site.is_layer]
    assert together.n == len(layers) == 12
    ranks = [np.argsort(np.argsort([v[key] for v in layers])) for key in ("drift.norm_of_mean", "mean_cosine")]
    assert together.rho == pytest.approx(np.corrcoef(*ranks)[0, 1], rel=1e-12)
