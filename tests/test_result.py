"""Results: frozen, printed as a table, and round trips through JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import Any

import pytest
import torch

import fastaniso
from fastaniso import Description

X = torch.randn(80, 6, generator=torch.Generator().manual_seed(0)) + 0.5
GROUPS = torch.arange(80) // 20
NAMES = (
    "n",
    "dim",
    "pairs",
    "dropped",
    "mean_cosine",
    "cosine_std",
    "drift",
    "norms",
    "participation_ratio",
    "isoscore",
    "effective_rank",
    "top_dimensions",
    "mean_cosine_without_top3",
    "groups",
    "within_groups",
    "between_groups",
    "metrics",
    "exact",
    "accumulator",
    "provenance",
    "notes",
    "version",
    "conventions",
)


@pytest.fixture
def description() -> Description:
    return fastaniso.describe(X, groups=GROUPS)


def test_results_are_frozen(description: Description) -> None:
    groups = fastaniso.group_cosine(X, GROUPS)
    for result in (
        description,
        description.drift,
        description.norms,
        description.dropped,
        groups,
        fastaniso.plan(1, 1),
    ):
        name = dataclasses.fields(result)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, name, 0)
    for array in (
        description.eigenvalues,
        description.contributions.values,
        groups.labels,
        groups.counts,
        groups.within,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_dict_and_json_round_trip(description: Description) -> None:
    content = description.to_dict()
    assert tuple(content) == NAMES
    assert content["mean_cosine"] == description.mean_cosine
    assert content["norms"]["mean"] == description.norms.mean
    assert content["exact"] is True
    assert content["accumulator"] == "float64"
    assert content["version"] == fastaniso.__version__

    def listed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: listed(item) for key, item in value.items()}
        return [listed(item) for item in value] if isinstance(value, list | tuple) else value

    assert json.loads(description.to_json()) == listed(content)
    assert json.loads(description.to_json(indent=2)) == listed(content)


def test_every_value_has_a_convention(description: Description) -> None:
    values = set(NAMES) - {"n", "dim", "pairs", "dropped", "groups", "exact", "accumulator", "provenance", "notes"}
    values -= {"version", "conventions", "metrics", "top_dimensions", "mean_cosine_without_top3"}
    assert values | {"contributions"} == set(description.conventions)


def test_json_has_null_for_what_is_undefined() -> None:
    content = json.loads(fastaniso.describe(X[:1]).to_json())
    assert content["mean_cosine"] is None
    assert content["norms"]["mean"] > 0
    assert content["top_dimensions"][0][1] is None


def test_the_table(description: Description) -> None:
    lines = str(description).splitlines()
    text = dict(line.split("  ", 1) for line in (line.strip() for line in lines))
    assert text["rows"].strip() == "80 of 6 numbers"
    assert text["pairs"].strip() == "6,320 (all ordered pairs, exact)"
    assert float(text["mean cosine"]) == pytest.approx(description.mean_cosine, rel=1e-5)
    for label in ("cosine std", "within groups", "between groups", "norms", "IsoScore", "effective rank (uncentred)"):
        assert label in text
    assert "float32 rows" in text["from"]
    short = str(fastaniso.describe(X, gram=False))
    assert "IsoScore" not in short
    assert "cosine std" not in short


def test_the_table_tells_what_was_dropped_and_when_rows_are_few() -> None:
    mask = torch.arange(80) > 2
    text = str(fastaniso.describe(X[:, :6], mask=mask))
    assert "77 of 6 numbers (3 masked dropped)" in text
    few = "spectral scores of 20 rows of dimension 6 are biased towards few directions"
    assert few in str(fastaniso.describe(X[:20]))
    assert fastaniso.describe(X[:20], gram=False).notes == ()


def test_plot(description: Description) -> None:
    pytest.importorskip("matplotlib")
    figure = description.plot()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert any("contribute" in title for title in titles)
    assert any("Spectrum" in title for title in titles)
    assert fastaniso.describe(X, gram=False).plot().axes


def test_plot_without_matplotlib(description: Description, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastaniso\[plot\]'"):
        description.plot()


def test_contributions_of_fewer_dimensions_than_asked_for() -> None:
    result = fastaniso.dimension_contributions(X[:, :2])
    assert len(result.top(5).indices) == 2
    assert result.mean_without_top(5) == 0
    assert math.isclose(result.mean_without_top(0), result.mean_cosine, abs_tol=1e-7)
