"""The catalogue: every metric a function of its name, one pass of each kind for all, names that help when wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import fastaniso
from fastaniso import Accumulator
from fastaniso.ops import dispatch
from fastaniso.statistics.catalogue import merged_needs
from fastaniso.statistics.metric import NEIGHBORS, STRUCTURES

X = torch.randn(150, 12, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 13) ** -0.5 + 0.4
GROUPS = torch.arange(150) // 30
METRICS = fastaniso.metrics()
OF_ROWS = [
    metric.name
    for metric in METRICS.values()
    if metric.structure in ("linear", "gram", "pairs", "neighbors", "second pass") and metric.value is not None
]
ONE_PASS = [name for name in OF_ROWS if METRICS[name].structure != "second pass"]


def plain(name: str, value: Any) -> Any:
    """What the function of that name returns, as ``describe`` names its numbers."""
    if name == "dimension_contributions":
        return {"largest": value.top(1).values[0], "without_top3": value.mean_without_top(3)}
    if name == "outlier_dimensions":
        fields = {field: getattr(value, field) for field in ("kurtosis", "max_over_median")}
        return {**fields, "count": len(value.dimensions)}
    if name == "cosine_extrema":
        return {"min": value.min.value, "max": value.max.value}
    if name == "hubness":
        return {field: getattr(value, field) for field in ("skewness", "robin_hood", "antihubs", "largest")}
    if name == "cosine_to_mean":
        return {"mean": value.mean, "std": value.std}
    if name in ("two_nn", "levina_bickel"):
        return value.dimension
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


def test_every_entry_is_complete() -> None:
    assert len(METRICS) > 25
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.structure in STRUCTURES
        assert metric.range
        assert metric.convention
        assert metric.cost.startswith("O(")
        with pytest.raises(dataclasses.FrozenInstanceError):
            metric.name = "another"  # type: ignore[misc]
        with pytest.raises(TypeError):
            metric.options["another"] = 1  # type: ignore[index]


@pytest.mark.parametrize("name", list(METRICS))
def test_every_metric_is_a_function_with_its_options(name: str) -> None:
    function = getattr(fastaniso, name)
    assert len((inspect.getdoc(function) or "").splitlines()[0]) > 40, "the convention stands in the first line"
    parameters = inspect.signature(function).parameters
    for option, default in METRICS[name].options.items():
        assert option in parameters
        if parameters[option].default is not inspect.Parameter.empty:
            assert parameters[option].default == default, option


def test_the_catalogue_prints_as_a_table() -> None:
    lines = str(METRICS).splitlines()
    assert len(lines) == len(METRICS) + 1
    assert lines[0].split() == ["name", "structure", "range", "source", "convention"]
    assert any(line.startswith("isoscore ") and "Rudman et al. 2022" in line for line in lines)
    assert "isoscore" in repr(METRICS)


NAMES = {
    "isoscor": "isoscore or isoscore_star",
    "rank_me": "rankme",
    "anisotropy": "mean_cosine or top_eigenvalue_share",
    "erank": "effective_rank",
    "IsoScore*": "isoscore_star",
    "qqq": r"fastaniso.metrics\(\) lists them",
}


@pytest.mark.parametrize("wrong", NAMES)
def test_unknown_names_get_the_nearest(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"metrics: no metric '{wrong.replace('*', '.')}'; .*{NAMES[wrong]}"):
        fastaniso.describe(X, metrics=[wrong])
    with pytest.raises(KeyError, match=NAMES[wrong]):
        METRICS[wrong]


def test_unusable_requests_say_why() -> None:
    with pytest.raises(ValueError, match="'mev' has no option 'k'; its options are: center, standardize, unit, legacy"):
        fastaniso.describe(X, metrics=[("mev", {"k": 3})])
    with pytest.raises(ValueError, match="'norms' has no option 'k'; its options are: none"):
        fastaniso.describe(X, metrics={"norms": {"k": 3}})
    with pytest.raises(ValueError, match="'group_cosine' needs groups, which describe does not have; pass groups="):
        fastaniso.describe(X, metrics="group_cosine")
    with pytest.raises(ValueError, match=r"'two_nn' needs neighbors, which an Accumulator .* call fastaniso.two_nn"):
        Accumulator(metrics=["two_nn"])
    with pytest.raises(ValueError, match="k: expected an int from 1 to 128"):
        fastaniso.describe(X, metrics={"hubness": {"k": 0}})
    with pytest.raises(ValueError, match="t: expected a number above 0"):
        fastaniso.describe(X, metrics={"uniformity": {"t": -1}})


def test_describe_gives_each_metric_as_its_function_does() -> None:
    result = fastaniso.describe(X, metrics="all", groups=GROUPS)
    assert set(result.metrics) >= {*OF_ROWS, "group_cosine"}
    for name in OF_ROWS:
        if name == "cosine_quantiles":
            q = METRICS[name].options["q"]
            expected = {f"{at:g}": value for at, value in zip(q, fastaniso.cosine_quantiles(X, q).value, strict=True)}
        else:
            expected = plain(name, getattr(fastaniso, name)(X))
        assert result.metrics[name] == pytest.approx(expected, rel=1e-9, abs=1e-12), name
    groups = fastaniso.group_cosine(X, GROUPS)
    assert result.metrics["group_cosine"] == {"within": groups.pooled_within, "between": groups.pooled_between}


def test_options_and_variants_stand_side_by_side() -> None:
    asked = ["mev", ("mev", {"legacy": "centered"}), ("uniformity", {"t": 3.0}), "uniformity", ("hubness", {"k": 3})]
    result = fastaniso.describe(X, metrics=asked)
    labels = ["mev", "mev(legacy='centered')", "uniformity(t=3.0)", "uniformity", "hubness(k=3)"]
    assert list(result.metrics) == labels
    assert result.metrics["mev(legacy='centered')"] == pytest.approx(fastaniso.mev(X, legacy="centered"), rel=1e-12)
    assert result.metrics["uniformity(t=3.0)"] == fastaniso.uniformity(X, t=3.0)
    assert result.metrics["uniformity"] == fastaniso.uniformity(X)
    hubs = fastaniso.hubness(X, 3)
    assert result.metrics["hubness(k=3)"] == pytest.approx(plain("hubness", hubs))
    assert result.conventions["mev"].endswith("center=False; standardize=False; unit=False")
    assert result.conventions["mev(legacy='centered')"].endswith("legacy='centered'")
    assert fastaniso.describe(X, metrics={"mev": {"legacy": "centered"}}).metrics == {
        labels[1]: result.metrics[labels[1]]
    }


def test_results_by_name_are_in_dict_json_and_table() -> None:
    result = fastaniso.describe(X, metrics=["nesum", "outlier_dimensions"])
    content = json.loads(result.to_json())
    assert content["metrics"]["nesum"] == result.metrics["nesum"]
    assert content["metrics"]["outlier_dimensions"]["kurtosis"] > 1
    assert "center=True" in content["conventions"]["nesum"]
    lines = str(result).splitlines()
    assert any(line.startswith("nesum") for line in lines)
    assert any(line.startswith("outlier_dimensions") and "kurtosis" in line for line in lines)
    both = str(fastaniso.describe(X, metrics=["isoscore"], gram=True)).splitlines()
    assert sum("soscore" in line.lower() for line in both) == 1


@pytest.mark.parametrize(
    ("metrics", "runs"),
    [
        (["mean_cosine", "norms"], {"moments": 1}),
        (["nesum", "rankme", "isoscore"], {"gram": 1}),
        (["self_clustering", ("nesum", {"unit": True})], {"gram": 1}),
        (["uniformity", "cosine_quantiles", "cosine_extrema"], {"moments": 2, "pairs": 1}),
        (["two_nn", "levina_bickel", "hubness"], {"moments": 2, "neighbors": 1}),
        (ONE_PASS, {"gram": 1, "moments": 1, "pairs": 1, "neighbors": 1}),
    ],
)
def test_one_pass_of_each_kind(metrics: Any, runs: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}
    for name in ("moments", "gram", "pairs", "neighbors", "group_moments", "mutual_neighbors"):
        function = getattr(dispatch, name)

        def counted(*args: Any, _name: str = name, _function: Any = function, **options: Any) -> Any:
            seen[_name] = seen.get(_name, 0) + 1
            return _function(*args, **options)

        monkeypatch.setattr(dispatch, name, counted)
    fastaniso.describe(X, metrics=metrics)
    assert seen == runs


def test_the_smallest_scatters_suffice() -> None:
    def held(metrics: Any, gram: bool | str = False) -> bool | str:
        return Accumulator(metrics=metrics, gram=gram).gram

    assert held(["mean_cosine", "outlier_dimensions"]) is False
    assert held(["isoscore"]) == "raw"
    assert held(["cosine_std"]) == "unit"
    assert held([("isoscore", {"unit": True})]) == "unit"
    assert held(["cosine_std", "isoscore"]) is True
    assert held(["isoscore"], gram="unit") is True
    assert held(None, gram="raw") == "raw"
    result = fastaniso.describe(X, metrics=["mean_cosine"])
    assert result.isoscore is None
    assert fastaniso.describe(X, metrics=["mean_cosine"], gram=True).isoscore is not None


def test_an_accumulator_gives_what_describe_gives() -> None:
    whole = fastaniso.describe(X, metrics="all", groups=GROUPS)
    parts = [Accumulator(metrics="all", groups=5) for _ in range(2)]
    for at, part in enumerate(parts):
        part.update(X[75 * at : 75 * at + 75], groups=GROUPS[75 * at : 75 * at + 75])
    for result in ((parts[0] + parts[1]).result(), parts[0].merge(parts[1]).result()):
        assert {METRICS[name].structure for name in result.metrics} == {"linear", "gram", "groups"}
        for name, value in result.metrics.items():
            assert value == pytest.approx(whole.metrics[name], rel=1e-5, abs=1e-7), name


def test_masked_rows_and_rows_left_out() -> None:
    mask = torch.arange(150) % 4 > 0
    hidden = torch.where(mask[:, None], X, torch.nan)
    expected = fastaniso.describe(X[mask], metrics="all")
    for result in (
        fastaniso.describe(hidden, metrics="all", mask=mask),
        fastaniso.describe(hidden, metrics="all", invalid="omit"),
        fastaniso.describe(hidden.view(3, 50, 12), metrics="all", mask=mask.view(3, 50)),
    ):
        for name, value in result.metrics.items():
            assert value == pytest.approx(expected.metrics[name], rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("n", [0, 1, 2, 3, 8])
def test_few_rows_give_numbers_or_nan(n: int) -> None:
    result = fastaniso.describe(X[:n], metrics="all", groups=GROUPS[:n])
    flat = [v for value in result.metrics.values() for v in (value.values() if isinstance(value, dict) else (value,))]
    assert all(isinstance(value, float) for value in flat)
    assert math.isnan(result.metrics["levina_bickel"])
    assert math.isnan(result.metrics["hubness"]["skewness"])
    assert math.isnan(result.metrics["rankme"]) == (n == 0)


def test_copies_and_few_rows_are_noted() -> None:
    result = fastaniso.describe(torch.cat((X, X[:7])), metrics="all")
    assert any("leave out 7 copies" in note for note in result.notes)
    assert result.metrics["two_nn"] == pytest.approx(fastaniso.two_nn(X).dimension, rel=1e-6)
    assert any("spectral scores" in note for note in fastaniso.describe(X[:20], metrics=["nesum"]).notes)
    unit = [("nesum", {"unit": True})]
    assert any("spectral scores" in note for note in fastaniso.describe(X[:20], metrics=unit).notes)
    assert fastaniso.describe(X[:20], metrics=["self_clustering"]).notes == ()


def test_memory_limit_and_progress() -> None:
    with pytest.raises(MemoryError, match="memory_limit"):
        fastaniso.describe(X, metrics=["uniformity"], memory_limit="1 kB")
    with pytest.raises(MemoryError, match="memory_limit"):
        fastaniso.describe(X, metrics=["hubness"], memory_limit="4 kB")
    told: list[Any] = []
    fastaniso.describe(X, metrics="all", memory_limit="1 GB", progress=told.append)
    assert [step.share for step in told] == [1, 1], "one tile of pairs, one of neighbours"


def test_needs_of_neighbours_are_merged() -> None:
    from fastaniso.statistics.catalogue import asked_for

    asked = asked_for(["hubness", "two_nn", ("levina_bickel", {"k": 12})], {NEIGHBORS}, who="a test")
    assert merged_needs(asked) == {NEIGHBORS: {"k": 12, "distances": True}}


def test_outlier_dimensions() -> None:
    x = torch.randn(500, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x[:, 7] *= 6
    x[:, 11] *= 4
    x[:, 20] += 10
    result = fastaniso.outlier_dimensions(x)
    rms = x.square().mean(0).sqrt()
    assert result.rms.tolist() == pytest.approx(rms.tolist())
    assert result.variance.tolist() == pytest.approx(x.var(0, correction=0).tolist())
    assert result.kurtosis == pytest.approx((rms.pow(4).mean() / rms.square().mean().square()).item())
    middle = rms.sort().values[19:21].mean()
    assert result.max_over_median == pytest.approx((rms.max() / middle).item())
    assert result.dimensions == (7, 11), "a shift is no variance"
    assert fastaniso.outlier_dimensions(x, factor=10).dimensions == (7,)
    assert fastaniso.outlier_dimensions(x[:, :39]).max_over_median == pytest.approx(
        (rms[:39].max() / rms[:39].median()).item()
    )
    one = torch.zeros(9, 16)
    one[:, 3] = 2
    alone = fastaniso.outlier_dimensions(one)
    assert (alone.kurtosis, alone.max_over_median, alone.dimensions) == (16, math.inf, ())
    assert fastaniso.outlier_dimensions(torch.ones(4, 8)).kurtosis == 1
    with pytest.raises(ValueError, match="factor: expected a number above 0"):
        fastaniso.outlier_dimensions(x, factor=0)
    with pytest.raises(ValueError, match="read-only"):
        result.rms[0] = 1


def test_the_page_of_metrics_is_current() -> None:
    path = Path(__file__).parent.parent / "docs" / "metrics.py"
    spec = importlib.util.spec_from_file_location("metrics_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run python docs/metrics.py"


def test_a_state_is_described_as_its_rows_are() -> None:
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(9)) + 0.5
    gram = fastaniso.Accumulator(gram=True).update(x).state
    found = fastaniso.describe_state(gram, metrics=["rankme", "self_clustering"])
    expected = fastaniso.describe(x, metrics=["rankme", "self_clustering"])
    assert found.metrics == expected.metrics
    assert found.mean_cosine == expected.mean_cosine
    assert {"isoscore", "cosine_std"} <= set(fastaniso.describe_state(gram, metrics="all").metrics)
    linear = fastaniso.Accumulator().update(x).state
    assert "isoscore" not in fastaniso.describe_state(linear, metrics="all").metrics
    with pytest.raises(ValueError, match="'rankme' needs raw scatter, which this state does not have"):
        fastaniso.describe_state(linear, metrics=["rankme"])
