"""Runs read back say what was measured; a comparison says what changed, and what could be noise."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import finished
import pytest

import fastaniso
from fastaniso import cli
from fastaniso.runs import Run, compare, load_run
from fastaniso.runs.attention import attentions_of, head_convention, head_label, head_names
from fastaniso.scanning.result import prefix_of
from fastaniso.state import CorruptStateError, load_state


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.scanned(tmp_path_factory.mktemp("runs") / "bert")


@pytest.fixture(scope="module")
def other_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.scanned(tmp_path_factory.mktemp("runs") / "other", seed=1000)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.scanned(tmp_path_factory.mktemp("runs") / "gpt2", "gpt2", attention=True)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.measured(tmp_path_factory.mktemp("runs") / "vectors")


def content(folder: Path, name: str = "scan.json") -> Any:
    return json.loads((folder / name).read_text())


def test_a_run_holds_what_was_written(bert: Path) -> None:
    run, written = load_run(bert), content(bert)
    assert (run.name, run.kind, run.missing) == ("bert", "scan", ())
    assert [site.site for site in run.sites] == [site["site"] for site in written["sites"]]
    for site, told in zip(run.sites, written["sites"], strict=True):
        for name in ("mean_cosine", "cosine_std", "isoscore", "within_sequence", "effective_rank"):
            assert site.values[name] == told[name]
        assert site.values["drift.relative"] == told["drift"]["relative"]
        assert site.values["norms.max"] == told["norms"]["max"]
        assert (site.n, site.dim) == (told["n"], told["dim"])
    assert run.about["tokens"] == written["tokens"]
    assert run.provenance == written["provenance"]


def test_every_metric_that_the_state_can_tell(bert: Path) -> None:
    state = fastaniso.load_state(bert / "states" / "block.1.safetensors")
    values = load_run(bert).sites[2].values
    # LayerNorm leaves a direction empty: the condition number is inf, which no figure can show.
    told = [metric for metric in fastaniso.metrics().values() if metric.value is not None]
    expected = {metric.name for metric in told if metric.structure in ("linear", "gram")} - {"condition_number"}
    assert {name.partition(".")[0] for name in values} >= expected
    eigenvalues = load_run(bert).sites[2].eigenvalues
    assert eigenvalues is not None
    assert len(eigenvalues) == state.dim
    assert values["mev"] == pytest.approx(eigenvalues.max() / eigenvalues.sum())


def test_what_goes_into_a_final_norm_is_the_last_block(gpt2: Path) -> None:
    run = load_run(gpt2)
    named = {site.site: site for site in run.sites}
    assert named["pre_final_norm"].same_as == "block.2"
    assert named["pre_final_norm"].values == named["block.2"].values
    assert "pre_final_norm" not in {site.site for site in run.own_sites}
    assert run.drift_correlation()[""].n == 4


def test_a_measurement(vectors: Path) -> None:
    run, written = load_run(vectors, name="rows"), content(vectors, "measure.json")
    assert (run.name, run.kind) == ("rows", "measure")
    (site,) = run.sites
    assert site.values["mean_cosine"] == written["mean_cosine"]
    assert run.pairs is not None
    assert run.pairs.mean == pytest.approx(written["mean_cosine"], rel=1e-5)
    assert site.noise["mean_cosine"].rows == site.noise["mean_cosine"].most


def test_without_states_the_json_is_what_there_is(bert: Path, tmp_path: Path) -> None:
    shutil.copy(bert / "scan.json", tmp_path)
    run = load_run(tmp_path)
    assert run.sites[0].values["isoscore"] == load_run(bert).sites[0].values["isoscore"]
    assert "mev" not in run.sites[0].values
    assert run.sites[0].noise == {}
    assert len(run.missing) == 1
    assert "states are not in the folder" in run.missing[0]


def test_without_scatters_there_is_no_noise(tmp_path: Path) -> None:
    run = load_run(finished.scanned(tmp_path, gram=False))
    assert run.sites[0].noise == {}
    assert "gram=False" in run.missing[0]
    assert "outlier_dimensions.kurtosis" in run.sites[0].values


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "scan", "format": 7}', '{"kind": "measure", "format": 1}'])
def test_damaged_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "scan.json").write_text(text)
    with pytest.raises(CorruptStateError, match=r"scan\.json"):
        load_run(tmp_path)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither .*; expected a folder that fastaniso scan"):
        load_run(tmp_path)


def test_a_run_against_itself(bert: Path) -> None:
    comparison = compare(bert, bert)
    assert comparison.made == {}
    assert comparison.beyond == ()
    assert {change.change for change in comparison.changes} == {0.0}
    assert {change.verdict for change in comparison.changes} == {"within", "unknown"}
    assert "the same settings" in str(comparison)


def test_other_words_through_one_model_are_within_the_noise(bert: Path, other_words: Path) -> None:
    comparison = compare(bert, other_words)
    noisy = [change for change in comparison.changes if change.noise is not None]
    assert len({change.metric for change in noisy}) == 5
    assert comparison.beyond == ()
    for change in noisy:
        of_rows, likely, most = change.noise or (0.0, 0.0, 0.0)
        assert 0 < likely <= most
        if change.metric == "mean_cosine":
            # The jackknife's: sequences may be more alike than their rows are.
            assert likely == most
        else:
            assert 0 < of_rows <= likely


def test_the_noise_of_a_mean_cosine_is_that_of_a_jackknife_over_sequences(bert: Path) -> None:
    run = load_run(bert)
    for site in run.sites:
        gram = load_state(bert / "states" / f"{site.site}.safetensors")
        groups = load_state(bert / "states" / f"{site.site}.groups.safetensors")
        # By hand: each group left out in turn.
        kept = [g for g in range(groups.groups) if groups.counts[g] > 0]
        left = []
        for g in kept:
            unit_sum, n = gram.sums[2] - groups.unit_sum[g], int(gram.counts[0] - groups.counts[g])
            squares = gram.totals[4] - groups.unit_squared[g]
            left.append(float((unit_sum.dot(unit_sum) - squares) / (n * (n - 1))))
        mean = sum(left) / len(left)
        error = ((len(left) - 1) / len(left) * sum((value - mean) ** 2 for value in left)) ** 0.5
        assert site.noise["mean_cosine"].likely == pytest.approx(error, rel=1e-5)


def test_another_model_is_beyond_the_noise(bert: Path, gpt2: Path) -> None:
    comparison = compare(bert, gpt2)
    assert {change.metric for change in comparison.beyond} >= {"mean_cosine", "norms.mean"}
    assert comparison.only_after == ("post_final_norm",)
    assert comparison.made["model_class"] == ("BertModel", "GPT2Model")
    text = str(comparison.of(["mean_cosine", "isoscore"]))
    assert "beyond the noise" in text
    assert "IsoScore (noise unknown)" in text
    assert "only in gpt2: post_final_norm" in text


def test_verdicts_follow_the_noise(bert: Path, gpt2: Path) -> None:
    for change in compare(bert, gpt2).changes:
        if change.noise is not None:
            _, likely, most = change.noise
            size = abs(change.change)
            assert change.verdict == ("beyond" if size > most else "within" if size <= likely else "likely beyond")


def test_a_scan_and_a_measurement_have_nothing_in_common(bert: Path, vectors: Path) -> None:
    with pytest.raises(ValueError, match="vectors is a measure and bert a scan"):
        compare(bert, vectors)


def test_a_metric_that_neither_has(bert: Path) -> None:
    with pytest.raises(ValueError, match=r"metrics: no site of both runs has 'isoscor'; they have .*isoscore"):
        compare(bert, bert).of(["isoscor"])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fastaniso", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_compare_on_the_command_line(run: Any, bert: Path, gpt2: Path) -> None:
    code, stdout, stderr = run("compare", bert, gpt2)
    assert (code, stderr) == (0, "")
    assert "Mean cosine\n" in stdout
    assert "RankMe" not in stdout
    assert "RankMe" in run("compare", bert, gpt2, "--metric", "all")[1]
    assert run("compare", bert, gpt2, "--fail-beyond")[0] == 4
    assert run("compare", bert, bert, "--fail-beyond")[0] == 0
    code, stdout, _ = run("compare", bert, gpt2, "--json", "--metric", "isoscore")
    told = json.loads(stdout)
    assert {change["metric"] for change in told["changes"]} == {"isoscore"}
    assert told["verdicts"] == {"unknown": 4}


def test_wrong_usage_of_compare(run: Any, bert: Path, tmp_path: Path) -> None:
    assert run("compare", bert, tmp_path / "nowhere")[0] == 2
    code, _, stderr = run("compare", bert, tmp_path)
    assert code == 1
    assert stderr.startswith("fastaniso: run: neither")
    assert "no site of both runs has 'x'" in run("compare", bert, bert, "--metric", "x")[2]


def test_a_run_given_as_read(bert: Path) -> None:
    read = load_run(bert, name="first")
    assert isinstance(read, Run)
    assert compare(read, bert).before == "first"


def test_attention_head_by_head(gpt2: Path) -> None:
    run, written = load_run(gpt2), content(gpt2)["attention"]
    assert [attention.site for attention in run.attentions] == ["block.0", "block.1", "block.2"]
    assert [attention.short_name for attention in run.attentions] == ["0", "1", "2"]
    for told, site in zip(run.attentions, written["sites"], strict=True):
        assert told.kind == "self"
        assert told.values["entropy"] == tuple(site["attention"]["entropy"])
        variances = site["attention"]["score_variance"]
        assert told.values["score_std"] == pytest.approx([math.sqrt(variance) for variance in variances])
        assert told.values["first_key"] == tuple(head[0] for head in site["attention"]["attention_to"])
        assert told.values["cosine_of_means"] == tuple(site["attended"]["cosine_of_means"])
        absolute = site["attended"]["absolute_cosine_of_means"]
        assert told.mean("absolute_cosine_of_means") == pytest.approx(absolute)
        assert told.values["keys.relative"] == tuple(site["attended"]["keys"]["relative"])
    assert all(head_convention(name, run.conventions) for name in head_names(run.attentions))


def test_heads_are_compared_by_their_mean(gpt2: Path) -> None:
    comparison = compare(gpt2, gpt2).of(["heads.entropy"])
    run = load_run(gpt2)
    assert [change.before for change in comparison.changes] == [one.mean("entropy") for one in run.attentions]
    assert {(change.change, change.verdict) for change in comparison.changes} == {(0.0, "unknown")}
    assert "Entropy (nats), mean of heads (noise unknown)" in str(comparison)


def test_attention_before_a_rotation_and_unknown(gpt2: Path) -> None:
    written = content(gpt2)["attention"]
    first, second, _ = written["sites"]
    second["projected"] = second["attended"]
    first["attention"]["entropy"][0] = None
    told = tuple(attentions_of(written))
    assert math.isnan(told[0].values["entropy"][0])
    assert told[1].values["before_rotation.cosine_of_means"] == told[1].values["cosine_of_means"]
    assert "before_rotation.entropy" not in told[1].values
    assert head_names(told)[-1] == "before_rotation.keys.relative"
    assert head_label("before_rotation.cosine_of_means") == "cos(Q̄, K̄) (before rotation)"
    assert list(attentions_of({})) == []


@pytest.mark.parametrize("prefix", ["", "encoder.", "stages.0.", "encoder.block.0."])
@pytest.mark.parametrize("site", ["embedding", "block.11", "pre_final_norm", "post_final_norm"])
def test_the_stack_of_a_site_is_what_stands_before_its_plain_name(prefix: str, site: str) -> None:
    assert prefix_of(prefix + site) == prefix
