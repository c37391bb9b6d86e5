"""The experiment ``training``: what it measures, that it goes on where it was stopped, and how it judges."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import fastaniso
from fastaniso.paper import Options, Outcome, Size, Verdict, run
from fastaniso.paper.training import EXPERIMENT, record
from fastaniso.paper.training.checkpoints import find_checkpoints
from fastaniso.paper.training.judging import judge, unrelated
from fastaniso.paper.training.loop import Training
from fastaniso.paper.training.sizes import BUDGETS, ProbeSet, log_spaced
from fastaniso.paper.training.vectors import Vectors, projected
from fastaniso.paper.training.words import probe_sequences, read_text, train_tokenizer

TEXT = Path(__file__).parent.parent / "examples" / "jargon-excerpt.txt"
SMOKE = Options(size=Size.smoke, text=(TEXT,), device="cpu")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """The smoke size, run once, and its folder."""
    out = tmp_path_factory.mktemp("paper")
    return run(EXPERIMENT, replace(SMOKE, out=out)), out


def test_both_models_learn_and_everything_is_measured(smoke: tuple[Outcome, Path]) -> None:
    outcome, out = smoke
    runs = outcome.measured["runs"]
    assert [(r["model"].split(" (")[0], r["seed"]) for r in runs] == [
        *(("masked LM", seed) for seed in range(2)),
        *(("causal LM", seed) for seed in range(2)),
    ]
    for measured in runs:
        assert measured["steps"] == [0, 1, 2, 4, 8, 12]
        assert measured["loss"]["held_out"][-1] < measured["loss"]["held_out"][0]
        assert len(measured["loss"]["training"]) == 5  # no step of training follows the last measurement
        assert measured["sites"] == ["embedding", "block.0", "block.1"]
        assert torch.tensor(measured["cosine"]).shape == (6, 2, 4)
        assert set(measured["live"]) == {"0", "1", "2", "4", "8"}
        assert list(measured["live"]["0"]) == measured["sites"]
    assert [measured["causal"] for measured in runs] == [False, False, True, True]
    assert json.loads((out / "training" / "outcome.json").read_text())["measured"] == json.loads(
        json.dumps(outcome.measured)
    )


def test_it_is_told_in_short_tables_and_small_pictures(smoke: tuple[Outcome, Path]) -> None:
    outcome, _ = smoke
    assert "Small models, trained for this page from 2 seeds" in outcome.setting
    assert sum(len(table.rows) for table in outcome.tables()) <= 30
    pictures = outcome.draw()
    assert [picture.name for picture in pictures] == ["states", "queries-keys", "directions", "clouds"]
    for picture in pictures:
        buffer = io.BytesIO()
        picture.figure.savefig(buffer, format="png", dpi=90)
        assert buffer.tell() < 150_000
    # A few steps teach nothing, and what has learned nothing is no test.
    assert {finding.verdict for finding in outcome.findings} == {Verdict.untestable}


def test_finished_models_are_there_for_others(smoke: tuple[Outcome, Path]) -> None:
    _, out = smoke
    for kind, auto in (("masked", "AutoModelForMaskedLM"), ("causal", "AutoModelForCausalLM")):
        folder = out / "training" / "models" / kind
        model = getattr(transformers, auto).from_pretrained(folder)
        assert not torch.equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        ids = tokenizer("hacker  culture\n", add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == "hacker  culture\n"
        assert max(ids) < model.config.vocab_size
        enclosed = tokenizer("hacker")["input_ids"]
        ends = [tokenizer.convert_ids_to_tokens(enclosed[place]) for place in (0, -1)]
        assert (ends == ["[CLS]", "[SEP]"]) == (kind == "masked")


@pytest.mark.parametrize("where", ["in a step", "while it is saved"])
def test_a_run_that_is_stopped_goes_on_to_the_same_figures(
    smoke: tuple[Outcome, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    stopped = {"in a step": (Training, "_update", (8, 19)), "while it is saved": (record.os, "replace", (2, 5))}
    owner, name, moments = stopped[where]
    updates: list[Any] = []
    calls: list[Any] = []
    update = Training._update
    monkeypatch.setattr(Training, "_update", lambda self, *given: updates.append(given) or update(self, *given))
    original: Callable[..., Any] = getattr(owner, name)

    def stopping(*given: Any) -> Any:
        calls.append(given)
        if len(calls) in moments:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(owner, name, stopping)
    options = replace(SMOKE, out=tmp_path, seeds=1)
    for _ in moments:
        with pytest.raises(KeyboardInterrupt):
            EXPERIMENT.measure(options)
    monkeypatch.setattr(owner, name, original)
    measured = EXPERIMENT.measure(options)
    undisturbed = smoke[0].measured
    assert measured["runs"] == [r for r in undisturbed["runs"] if r["seed"] == 0]
    assert measured["projections"] == undisturbed["projections"]
    # At most as many steps as lie between two saved states are done again, twice; and nothing of a finished run is.
    every = BUDGETS[Size.smoke].keep_every
    assert 24 < len(updates) <= 24 + 2 * every
    before = len(updates)
    assert EXPERIMENT.measure(options) == measured
    assert len(updates) == before


def test_a_seed_gives_the_same_figures_and_leaves_the_callers_random_numbers_alone(
    smoke: tuple[Outcome, Path], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    measured = EXPERIMENT.measure(replace(SMOKE, out=tmp_path))
    assert torch.equal(torch.rand(3), expected)
    assert json.dumps(measured) == json.dumps(smoke[0].measured)


def test_steps_and_text(tmp_path: Path) -> None:
    assert log_spaced(12) == [0, 1, 2, 4, 8, 12]
    assert log_spaced(16) == [0, 1, 2, 4, 8, 16]
    file = tmp_path / "short.txt"
    file.write_text("\n".join(f"line {number}" for number in range(20)), encoding="utf-8")
    text = read_text([file])
    assert text.training + text.held_out == file.read_text(encoding="utf-8")
    assert text.held_out.startswith("line ")
    with pytest.raises(ValueError, match="text: the experiment training reads text; expected at least one file"):
        EXPERIMENT.measure(replace(SMOKE, text=()))
    file.write_text("one line\nand one more\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"text: \d+ tokens to train on are fewer than the 33 of one sequence"):
        EXPERIMENT.measure(replace(SMOKE, text=(file,), out=tmp_path))
    first, again = (train_tokenizer(TEXT.read_text(encoding="utf-8"), 300, 32, enclose=True) for _ in range(2))
    assert first.get_vocab() == again.get_vocab()
    assert len(first) == 300


def test_vectors_are_those_of_a_singular_value_decomposition() -> None:
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(3, 4, 5, 6, generator=generator) + torch.tensor([3.0, 0, 0, 0, 0, 0])
    keys = torch.randn(3, 2, 5, 6, generator=generator) - torch.tensor([2.0, 0, 0, 0, 0, 0])
    keep = torch.ones(3, 5, dtype=torch.bool)
    keep[1, 3:] = False
    vectors = Vectors(keep, 7)
    for rows in (slice(0, 2), slice(2, 3)):
        vectors.begin(rows)
        vectors("layer", queries[rows], keys[rows])
    on_queries, on_keys = vectors.on_first_direction(0)
    for head in range(4):
        kept = queries[:, head][keep].double()
        first = torch.linalg.svd(kept).Vh[0]
        first = first * (kept @ first).mean().sign()
        assert on_queries[head] == pytest.approx(float((kept @ first).mean()), rel=1e-9)
        expected = (keys[:, head // 2][keep].double() @ first).mean()
        assert on_keys[head] == pytest.approx(float(expected), rel=1e-9)
    assert min(on_queries) > 0 > max(on_keys)
    picked, keys_picked = vectors.points(0)
    assert (picked.shape, keys_picked.shape) == ((7, 4, 6), (7, 2, 6))
    counted = queries.transpose(1, 2)[keep]
    assert all((counted == point).all((1, 2)).sum() == 1 for point in picked)


def test_clouds_lie_on_the_same_axes_and_keep_the_origin() -> None:
    generator = torch.Generator().manual_seed(2)
    clouds = [
        (torch.randn(9, 5, generator=generator) + away, torch.randn(9, 5, generator=generator) - away)
        for away in (0.0, 4.0)
    ]
    pairs, share = projected(clouds)
    union = torch.cat([part for pair in clouds for part in pair]).double()
    flat = torch.cat([part for pair in pairs for part in pair])
    values = torch.linalg.svdvals(union)
    assert torch.linalg.svdvals(flat).tolist() == pytest.approx(values[:2].tolist(), rel=1e-9)
    assert share == pytest.approx(float(values[:2].square().sum() / values.square().sum()), rel=1e-9)
    assert pairs[-1][0].mean(0).min() > 0
    assert pairs[-1][0][:, 0].min() > 0 > pairs[-1][1][:, 0].max()


STEADY: dict[str, Any] = {
    "model": "a model",
    "seed": 0,
    "steps": [0, 4],
    "sites": ["embedding", "block.0"],
    "layers": ["0"],
    "dims": [100],
    "causal": True,
    "loss": {"training": [3.0], "held_out": [3.0, 1.0], "baseline": 2.0},
    "live": {},
    "mean_cosine": [[0.9, 0.1], [0.1, 0.2]],
    "drift": [[1.0, 1.0], [1.0, 1.0]],
    "drift_relative": [[0.5, 0.5], [0.5, 0.5]],
    "query_norm": [[[1.0, 1.0]], [[2.0, 1.5]]],
    "key_norm": [[[1.0, 1.0]], [[1.0, 1.5]]],
    "cosine": [[[0.1, -0.1]], [[0.6, -0.9]]],
    "score": [[[0.1, -0.1]], [[0.5, -0.5]]],
    "entropy": [[[0.9, 0.9]], [[0.5, None]]],
    "query_on_first": [[[1.0, 1.0]], [[2.0, 2.0]]],
    "key_on_first": [[[1.0, 1.0]], [[-2.0, -1.0]]],
}


def verdicts(*runs: dict[str, Any]) -> dict[str, Verdict]:
    return {finding.key: finding.verdict for finding in judge({"runs": list(runs)})}


@pytest.mark.parametrize(
    ("key", "otherwise"),
    [
        ("means-grow", {"key_norm": [[[1.0, 1.0]], [[0.5, 1.4]]]}),
        ("means-align", {"cosine": [[[0.7, -0.9]], [[0.6, -0.9]]]}),
        ("means-align", {"cosine": [[[0.1, -0.1]], [[0.15, -0.19]]]}),  # they grow, and are no more than chance
        ("both-signs", {"cosine": [[[0.1, -0.1]], [[0.6, 0.9]]]}),
        ("both-signs", {"cosine": [[[0.1, -0.1]], [[0.6, -0.1]]]}),  # of the other sign, and not aligned
        ("product-grows", {"score": [[[0.6, -0.6]], [[0.5, -0.5]]]}),
        ("attention-sharpens", {"entropy": [[[0.4, 0.4]], [[0.5, None]]]}),
        ("anisotropy-rises", {"mean_cosine": [[0.1, 0.3], [0.9, 0.2]]}),  # what the first block takes is no block
        ("one-filter", {"key_on_first": [[[1.0, 1.0]], [[-2.0, 1.0]]]}),
    ],
)
def test_verdicts_follow_the_measurements(key: str, otherwise: dict[str, Any]) -> None:
    assert set(verdicts(STEADY).values()) == {Verdict.holds}
    changed = {**STEADY, **otherwise}
    assert verdicts(changed)[key] == Verdict.fails
    assert verdicts(STEADY, {**changed, "seed": 1})[key] == Verdict.fails  # all seeds have to agree
    assert verdicts(STEADY, {**changed, "model": "another"})[key] == Verdict.fails
    finding = next(found for found in judge({"runs": [STEADY, {**changed, "seed": 1}]}) if found.key == key)
    assert "means of 2 seeds; so in 1 of them" in finding.because
    assert finding.models == ("a model",)


def test_what_is_no_test_is_called_none() -> None:
    unlearned = {**STEADY, "loss": {**STEADY["loss"], "held_out": [3.0, 2.0]}}
    short = {**STEADY, "steps": [0]}
    for run_of in (unlearned, short):
        assert set(verdicts(run_of).values()) == {Verdict.untestable}
    assert set(verdicts(STEADY, {**unlearned, "model": "another"}).values()) == {Verdict.holds}
    assert "a held-out loss of 2.00 is not below 2.00" in judge({"runs": [unlearned]})[0].because
    assert verdicts({**STEADY, "causal": False})["one-filter"] == Verdict.untestable
    assert unrelated(100) == pytest.approx(0.196)


@pytest.fixture(scope="module")
def checkpoints(smoke: tuple[Outcome, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model at three steps, each with larger weights; the tokenizer lies in the first."""
    folder, source = tmp_path_factory.mktemp("run"), smoke[1] / "training" / "models" / "masked"
    model = transformers.AutoModelForMaskedLM.from_pretrained(source)
    for step in ("step_0", "checkpoint-20", "checkpoint-100"):
        model.save_pretrained(folder / step)
        with torch.no_grad():
            for layer in model.bert.encoder.layer:
                layer.attention.self.query.weight.mul_(3)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder / "step_0")
    (folder / "runs-2024").mkdir()
    return folder


def test_checkpoints_of_ones_own_are_measured_in_their_order(checkpoints: Path, tmp_path: Path) -> None:
    said: list[str] = []
    options = replace(SMOKE, out=tmp_path, checkpoints=(checkpoints, tmp_path), say=said.append)
    outcome = run(EXPERIMENT, options)
    (measured,) = outcome.measured["runs"]
    assert measured["steps"] == [0, 20, 100]
    assert len(said) == 3
    assert "has no checkpoint" in outcome.skipped[str(tmp_path)]
    assert "One training each" in outcome.setting
    norms = [sum(layers[0]) for layers in measured["query_norm"]]
    assert norms[0] < norms[1] < norms[2]
    assert {f.key: f.verdict for f in outcome.findings}["one-filter"] == Verdict.untestable  # no causal model

    # The last checkpoint, by hand.
    model = transformers.AutoModel.from_pretrained(checkpoints / "checkpoint-100").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoints / "step_0")
    probe = outcome.measured["probe"]
    told = next(iter(outcome.measured["models"].values()))["probed_tokens"]
    assert told == probe["sequences"] * (probe["length"] - 2)
    assert outcome.measured == EXPERIMENT.measure(options)
    assert len(said) == 3  # a second run reads what the first has kept
    (checkpoints / "checkpoint-20").rename(checkpoints / "checkpoint-30")
    assert EXPERIMENT.measure(options)["runs"][0]["steps"] == [0, 30, 100]
    assert len(said) == 4  # and measures a checkpoint that is new alone
    (checkpoints / "checkpoint-30").rename(checkpoints / "checkpoint-20")
    sequences = probe_sequences(tokenizer, TEXT.read_text(encoding="utf-8"), ProbeSet(**probe))
    keep = sequences.keep
    with torch.no_grad():
        states = model(sequences.ids, sequences.attention_mask, output_hidden_states=True).hidden_states
        own = model.encoder.layer[1].attention.self
        means = [part(states[1])[keep].unflatten(1, (4, 8)).mean(0) for part in (own.query, own.key)]
    assert measured["mean_cosine"][-1] == pytest.approx(
        [fastaniso.mean_cosine(state, mask=keep) for state in states], rel=1e-4
    )
    assert measured["drift"][-1][2] == pytest.approx(float(states[2][keep].mean(0).norm()), rel=1e-4)
    assert measured["key_norm"][-1][1] == pytest.approx(means[1].norm(dim=1).tolist(), rel=1e-3)
    assert measured["cosine"][-1][1] == pytest.approx(torch.cosine_similarity(*means).tolist(), abs=1e-3)
    assert measured["score"][-1][1] == pytest.approx((torch.linalg.vecdot(*means) / 8**0.5).tolist(), rel=1e-3)


def test_folders_that_are_no_checkpoints(checkpoints: Path, tmp_path: Path) -> None:
    assert list(find_checkpoints(checkpoints)) == [0, 20, 100]
    with pytest.raises(ValueError, match="has no checkpoint: expected sub-folders with a number in their names"):
        EXPERIMENT.measure(replace(SMOKE, out=tmp_path, checkpoints=(tmp_path,)))
    shutil.copytree(checkpoints / "checkpoint-20", tmp_path / "step_20")
    with pytest.raises(ValueError, match=r"there is no tokenizer \(tokenizer_config.json\)"):
        EXPERIMENT.measure(replace(SMOKE, out=tmp_path, checkpoints=(tmp_path,)))
    shutil.copytree(checkpoints / "checkpoint-20", tmp_path / "epoch3-step20")
    with pytest.raises(ValueError, match="are both of step 20; take one away"):
        find_checkpoints(tmp_path)
