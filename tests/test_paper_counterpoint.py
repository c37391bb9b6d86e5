"""The counterpoint: what is measured of tables and norms, and what is made of the measurements."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import fastaniso
from fastaniso.paper import Options, Size, Verdict, run
from fastaniso.paper.counterpoint import EXPERIMENT
from fastaniso.paper.counterpoint.judging import PUBLISHED, judge
from fastaniso.paper.counterpoint.models import kind_of
from fastaniso.paper.counterpoint.reading import around_final_norm, batches, loss
from fastaniso.paper.counterpoint.tables import measured, tables
from fastaniso.paper.models.tokenizing import subwords

TEXT = Path(__file__).parent.parent / "examples" / "jargon-excerpt.txt"
SHAPE = {"vocab_size": 300, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}


def causal(kind: str = "gpt2", *, tied: bool = False) -> Any:
    torch.manual_seed(0)
    if kind == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **SHAPE, tie_word_embeddings=tied)).eval()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**sizes, **SHAPE)).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return subwords(TEXT.read_text(encoding="utf-8")[:20_000], 300, begin=True, end=True)


@pytest.fixture(scope="module")
def read(tokenizer: Any) -> Any:
    return batches(tokenizer, [TEXT], length=24, most_tokens=200, device="cpu")


def record(name: str = "model", **changes: Any) -> dict[str, Any]:
    """A trained language model with a near isotropic input table, and a final norm that undoes much."""
    input_table = {"table": "input", "rows": 100, "dim": 10, "zero_rows": 0, "norm": 1.0}
    input_table |= {"cosine": 0.01, "centred_cosine": 0.0, "isotropy": 0.95, "centred_isotropy": 0.99}
    output_table = {**input_table, "table": "output", "cosine": 0.6, "isotropy": 0.1, "centred_isotropy": 0.97}
    norm = {"stack": "", "before": 0.9, "after": 0.05, "drift_before": 0.9, "drift_after": 0.2}
    return {
        **{"name": name, "trained": True, "kind": "causal", "data": "a text", "read": "10 tokens of 2 sequences"},
        **{"tables": [input_table, output_table], "norms": [norm], "stacks": {"": {"embedding": 0.1, "block.0": 0.9}}},
        **{"loss": 3.0, "chance": 6.0, "predicted": 9},
        **changes,
    }


def verdicts(*records: dict[str, Any]) -> dict[str, Verdict]:
    return {finding.key: finding.verdict for finding in judge({"size": "small", "models": records, "skipped": {}})}


def test_what_is_anisotropic_and_what_the_norm_does() -> None:
    found = verdicts(record())
    assert {key: found[key] for key in ("table", "states", "output", "centring", "norm", "undoes")} == {
        **dict.fromkeys(("table", "states", "output", "centring", "undoes"), Verdict.holds),
        "norm": Verdict.holds,
    }
    other = record()
    other["tables"][0] |= {"isotropy": 0.05}
    other["tables"][1] |= {"centred_isotropy": 0.5}
    other["norms"][0] |= {"before": 0.9, "after": 0.95}
    found = verdicts(other)
    # That none of a few models is isotropic does not show that there is none.
    assert [found["table"], found["states"]] == [Verdict.untestable, Verdict.untestable]
    assert {found[key] for key in ("output", "centring", "norm", "undoes")} == {Verdict.fails}
    assert verdicts(other, record("second"))["table"] == Verdict.holds


def test_a_model_that_only_guesses_is_no_trained_one() -> None:
    guesses = record(loss=5.9)
    assert set(verdicts(guesses).values()) == {Verdict.untestable}
    assert "little better than a guess (model)" in EXPERIMENT.setting({"size": "small", "models": [guesses]})
    assert "guess" not in EXPERIMENT.setting({"size": "small", "models": [record()]})
    # An encoder without a head has a table, and is no language model.
    found = verdicts(record(loss=None))
    assert [found["table"], found["states"]] == [Verdict.holds, Verdict.untestable]


def test_untrained_models_say_nothing_of_trained_ones() -> None:
    found = verdicts(record(trained=False))
    # Its output table is not isotropic.
    assert found.pop("untrained") == Verdict.fails
    assert set(found.values()) == {Verdict.untestable}
    isotropic = record(trained=False)
    isotropic["tables"] = isotropic["tables"][:1]
    assert verdicts(isotropic)["untrained"] == Verdict.holds


def test_tables_with_fewer_rows_than_dimensions_decide_nothing() -> None:
    small = record()
    for table in small["tables"]:
        table["rows"] = 9
    found = verdicts(small)
    assert {found[key] for key in ("table", "output", "centring")} == {Verdict.untestable}


def test_pythia() -> None:
    assert verdicts(record("pythia-70m"))["pythia"] == Verdict.untestable
    assert verdicts(record("pythia-1b"))["pythia"] == Verdict.holds
    assert verdicts(record("pythia-1b"), record("pythia-410m", norms=[]))["pythia"] == Verdict.fails
    assert verdicts(record("pythia-70m"))["published"] == Verdict.fails
    published = record("pythia-70m")
    for (place, kind), value in PUBLISHED.items():
        next(table for table in published["tables"] if table["table"] == place)[kind] = value + 2e-4
    assert verdicts(published)["published"] == Verdict.holds
    del published["tables"][1]
    assert verdicts(published)["published"] == Verdict.fails


def test_a_table() -> None:
    random = np.random.default_rng(0)
    table = np.concatenate([random.normal(size=(200, 12)) * 0.3 + 0.4, np.zeros((1, 12))])
    found = measured(torch.tensor(table, dtype=torch.float32), thorough=True)
    rows = table[:200]

    def isotropy(x: Any) -> float:
        directions = np.linalg.eigh(x.T @ x)[1]
        sums = np.exp(x @ np.concatenate([directions, -directions], axis=1)).sum(0)
        return float(sums.min() / sums.max())

    assert [found["rows"], found["zero_rows"], found["dim"]] == [200, 1, 12]
    assert found["isotropy"] == pytest.approx(isotropy(rows), rel=1e-5)
    assert found["centred_isotropy"] == pytest.approx(isotropy(rows - rows.mean(0)), rel=1e-5)
    assert found["unit_isotropy"] == pytest.approx(isotropy(rows / np.linalg.norm(rows, axis=1)[:, None]), rel=1e-5)
    assert found["one_sided"] >= found["isotropy"]
    assert found["cosine"] > 0.5 > abs(found["centred_cosine"])
    assert found["norm"] == pytest.approx(np.linalg.norm(rows, axis=1).mean(), rel=1e-6)


def test_which_tables_a_model_has() -> None:
    def places(network: Any, *, trained: bool = True) -> list[str]:
        return [table["table"] for table in tables(network, head_is_trained=trained, thorough=False)]

    assert places(causal()) == ["input", "output"]
    assert places(causal(tied=True)) == ["tied"]
    assert places(causal(), trained=False) == ["input"]
    assert places(causal().transformer) == ["input"]


@pytest.mark.parametrize("kind", ["gpt2", "gpt-neox"])
def test_states_around_the_final_norm_are_those_of_a_scan(kind: str, read: Any) -> None:
    network = causal(kind)
    with torch.no_grad():
        states = around_final_norm(network, read)
    assert states is not None
    given = [{"input_ids": b.ids, "attention_mask": b.attention_mask, "mask": b.keep} for b in read]
    scan = fastaniso.scan(network, given, gram=False)
    assert len(states[0]) == sum(int(b.keep.sum()) for b in read) == 200
    for rows, site in zip(states, ("pre_final_norm", "post_final_norm"), strict=True):
        assert fastaniso.mean_cosine(rows) == pytest.approx(scan[site].description.mean_cosine, abs=1e-6)
    assert all(not module._forward_hooks for module in network.modules())


def test_a_model_that_ends_in_a_block_has_no_final_norm(read: Any) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    network = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=300, **sizes)).eval()
    with torch.no_grad():
        assert around_final_norm(network, read) is None


def test_batches(tokenizer: Any, read: Any) -> None:
    special = set(tokenizer.all_special_ids)
    for batch in read:
        assert batch.ids.shape[1] <= 24
        assert not special & set(batch.ids[batch.keep].tolist())
        assert not (batch.keep & ~batch.attention_mask.bool()).any()
    lines = batches(tokenizer, ["a line", "another"], length=24, most_tokens=1000, device="cpu")
    assert [len(batch.ids) for batch in lines] == [2]
    with pytest.raises(LookupError, match="no token"):
        batches(tokenizer, [], length=24, most_tokens=10, device="cpu")


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_loss(kind: str, read: Any) -> None:
    seen = []

    class Guess:
        """Certain of the token that it reads, or of none."""

        def __init__(self, sure: float) -> None:
            self.sure = sure

        def __call__(self, input_ids: Any, attention_mask: Any) -> Any:
            seen.append(input_ids)
            return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids, 301) * self.sure)

    guess = loss(Guess(0.0), kind, read, 300)
    assert guess["loss"] == pytest.approx(math.log(301)) == pytest.approx(guess["chance"])
    masked = sum(int((ids == 300).sum()) for ids in seen)
    assert masked == (guess["predicted"] if kind == "masked" else 0)
    assert 0 < guess["predicted"] < 200
    # What a token is predicted from is not the token itself.
    assert loss(Guess(50.0), kind, read, 300)["loss"] > 10
    if kind == "masked":
        assert loss(Guess(0.0), kind, read, None) == {}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (transformers.GPT2Config(), "causal"),
        (transformers.BertConfig(architectures=["BertForMaskedLM"]), "masked"),
        (transformers.BertConfig(), "masked"),
        (transformers.BertConfig(architectures=["BertLMHeadModel"]), "causal"),
        (transformers.T5Config(), "encoder–decoder"),
        (transformers.WhisperConfig(), "speech"),
        (transformers.ViTConfig(), ""),
    ],
)
def test_what_a_head_does(config: Any, kind: str) -> None:
    assert kind_of(config) == kind


def test_smoke(tmp_path: Path, tokenizer: Any) -> None:
    here = tmp_path / "training" / "models" / "causal"
    causal().save_pretrained(here)
    tokenizer.save_pretrained(here)
    listed = tmp_path / "models.txt"
    listed.write_text(f"{here} name=listed\n./gone\nrandom:bert\n")
    outcome = run(EXPERIMENT, Options(size=Size.smoke, out=tmp_path, models=listed, text=(TEXT,)))
    by_name = {record["name"]: record for record in outcome.measured["models"]}
    assert list(by_name) == ["listed", "causal LM of this run", "GPT-2, untrained", "GPT-NeoX, untrained"]
    assert outcome.skipped == {"gone": "LookupError: there is no folder ./gone"}
    assert by_name["listed"] == {**by_name["causal LM of this run"], "name": "listed"}
    # Untrained weights under the name of a trained model: no better than a guess.
    assert by_name["listed"]["loss"] == pytest.approx(by_name["listed"]["chance"], rel=0.05)
    findings = {finding.key: finding for finding in outcome.findings}
    assert findings["untrained"].verdict == Verdict.holds
    assert findings["output"].verdict == Verdict.untestable
    assert "2 trained models and 2 untrained ones" in outcome.setting
    assert [len(table.rows) for table in outcome.tables()] == [8, 4, 2]
    pictures = [picture.name for picture in outcome.draw()]
    assert pictures == ["tables", "norms"]
    assert all((tmp_path / "counterpoint" / "figures" / f"{name}.png").stat().st_size > 1000 for name in pictures)
