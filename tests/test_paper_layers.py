"""The experiment layers: lists of models, verdicts from hand-made figures, and a run of what is at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from paper_records import line, measured, record

transformers: Any = pytest.importorskip("transformers", reason="the models are transformers'")

import tiny  # noqa: E402
import tiny_senses  # noqa: E402

from fastaniso.paper import Options, Outcome, Size, Verdict, run  # noqa: E402
from fastaniso.paper.drift import EXPERIMENT as DRIFT  # noqa: E402
from fastaniso.paper.layers import EXPERIMENT as LAYERS  # noqa: E402
from fastaniso.paper.layers.judging import judge  # noqa: E402
from fastaniso.paper.models import default_list, read_list  # noqa: E402
from fastaniso.paper.models.families import FAMILIES, SCALES  # noqa: E402
from fastaniso.paper.models.figures import PAPER  # noqa: E402
from fastaniso.paper.models.tokenizing import byte_tokens, characters, of_vocabulary, subwords  # noqa: E402

TEXT = Path(__file__).parent.parent / "examples" / "jargon-excerpt.txt"


def listed(folder: Path, text: str) -> Path:
    file = folder / "models.txt"
    file.write_text(text, encoding="utf-8")
    return file


def verdicts(*records: dict[str, Any]) -> dict[str, Verdict]:
    return {finding.key: finding.verdict for finding in judge(measured(*records))}


# Lists.


def test_lines_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    text = """
    # What we have.
    google/canine-s
    mine  name="My model" figure=speech data=sounds  # ours
    package:numpy/core figure=other lines=molecules.txt tokenizer=bytes
    random:bert seed=3
    """
    canine, mine, packaged, bert = read_list(listed(tmp_path, text))
    assert (canine.name, canine.figure, canine.source()) == ("canine-s", "character", "google/canine-s")
    assert (mine.name, mine.figure, mine.source()) == ("My model", "speech", str(tmp_path / "mine"))
    assert mine.found("sounds") == tmp_path / "sounds"
    assert Path(packaged.source()).parts[-2:] == ("numpy", "core")
    assert (packaged.lines, packaged.tokenizer) == ("molecules.txt", "bytes")
    assert (bert.name, bert.family, bert.seed, bert.is_trained) == ("random BERT, seed 3", "bert", 3, False)
    control = mine.control()
    assert (control.name, control.is_trained, control.source()) == ("untrained My model", False, mine.source())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"models\.txt: expected a model a line, got none"),
        ("gpt2\ngpt2 figure=other", r"models\.txt: two models are called gpt2; give one of them a name="),
        ("\nrandom:lstm", r"line 2: expected random: and all or one of bert, .*, got 'random:lstm'"),
        ("gpt2 colour=red", r"line 1: expected one model and then options name=, .*, got 'colour=red'"),
        ("gpt2 roberta-base", r"line 1: expected one model and then options .*, got 'roberta-base'"),
        ("gpt2 figure=music", r"line 1: figure: expected one of subword, .*, got 'music'"),
        ("gpt2 lines=a data=b", r"line 1: data, lines: expected one of them, got both"),
        ("mine figure=vision lines=a", r"line 1: lines: are texts, and a model of figure=vision reads images"),
        ("random:bert seed=two", r"line 1: seed: expected a whole number, got 'two'"),
        ("random:all name=x", r"line 1: random:all takes no option but seed=, got name"),
        ('gpt2 name="open', r"line 1: No closing quotation"),
    ],
)
def test_a_line_that_cannot_be_understood_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_list(listed(tmp_path, text))


def test_what_is_at_hand_holds_every_family_and_with_a_hub_the_papers_models() -> None:
    here, hub = default_list(hub=False), default_list(hub=True)
    assert {entry.family for entry in here} == {None, *FAMILIES}
    assert {entry.model for entry in hub} - {entry.model for entry in here} == set(PAPER)


# Tokenizers.


def test_bytes_and_characters_are_those_of_byt5_and_canine() -> None:
    text = "Naïve 漢字,\t«tabs»\n and 😀 \x01"
    assert byte_tokens()(text)["input_ids"] == transformers.ByT5Tokenizer()(text)["input_ids"]
    assert characters(text)(text)["input_ids"] == transformers.CanineTokenizer()(text)["input_ids"]
    assert characters("abc")("az")["input_ids"] == [0xE000, ord("a"), 0xFFFD, 0xE001]


def test_subwords_are_the_same_each_time() -> None:
    text = TEXT.read_text(encoding="utf-8")[:5000]
    first, again = (subwords(text, 300, begin=True, end=False) for _ in range(2))
    assert first.get_vocab() == again.get_vocab()
    assert len(first) == 300
    ids = first("never seen: 漢")["input_ids"]
    assert ids[0] == first.cls_token_id
    assert ids[-1] != first.sep_token_id
    assert first.decode(ids[1:]) == "never seen: 漢"


def test_of_a_vocabulary_the_longest_token_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    file.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nC\nCl\nl\n(\n)\n[nH]\n", encoding="utf-8")
    made = of_vocabulary(file)
    assert made.convert_ids_to_tokens(made("CCl(C)[nH] lX")["input_ids"]) == (
        ["[CLS]", "C", "Cl", "(", "C", ")", "[nH]", "l", "[UNK]", "[SEP]"]
    )
    assert made.pad_token_id == 0
    file.write_text("C\nl\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected a vocabulary with \[UNK\], a token a line, got 2 without it"):
        of_vocabulary(file)


# Verdicts.


def test_untrained_models_test_no_claim_of_the_paper() -> None:
    found = verdicts(record("random BERT", "subword", line([0.3, 0.4]), trained=False))
    of_the_paper = ("subword", "character", "more", "decoder", "speech", "vision", "convolutional", "other")
    assert {found[key] for key in of_the_paper} == {Verdict.untestable}
    assert found["untrained"] is found["deeper"] is Verdict.holds
    assert "training" not in found


@pytest.mark.parametrize(
    ("key", "holding", "failing"),
    [
        ("subword", [record("a", "subword", line([0.0, 0.2]))], [record("a", "subword", line([0.0, 0.05]))]),
        (
            "more",
            [record("a", "subword", line([0.2])), record("b", "character", line([0.3]))],
            [record("a", "subword", line([0.3])), record("b", "character", line([0.2]))],
        ),
        (
            "decoder",
            [record("a", "subword", line([0.1], name="encoder"), line([0.2], name="decoder"))],
            [record("a", "subword", line([0.2], name="encoder"), line([0.1], name="decoder"))],
        ),
        ("speech", [record("a", "speech", line([0.2, 0.3]))], [record("a", "speech", line([0.05, 0.3]))]),
        (
            "vision",
            [record("a", "vision", line([0.0])), record("b", "vision", line([0.2]))],
            [record("a", "vision", line([0.3])), record("b", "vision", line([0.2]))],
        ),
        (
            "convolutional",
            [record("a", "convolutional", line([0.0, 0.0, 0.9]))],
            [record("a", "convolutional", line([0.0, 0.8, 0.9]))],
        ),
        (
            "training",
            [record("a", "subword", line([0.3])), record("b", "subword", line([0.2]), trained=False, of="a")],
            [record("a", "subword", line([0.3])), record("b", "subword", line([0.4]), trained=False, of="a")],
        ),
        (
            "deeper",
            [record("a", "character", line([0.1, 0.2]), trained=False)],
            [record("a", "character", line([0.2, None, 0.1]), trained=False)],
        ),
    ],
)
def test_verdicts_turn_with_the_figures(key: str, holding: list[Any], failing: list[Any]) -> None:
    assert verdicts(*holding)[key] is Verdict.holds
    assert verdicts(*failing)[key] is Verdict.fails


def test_one_vision_model_cannot_differ() -> None:
    assert verdicts(record("a", "vision", line([0.3])))["vision"] is Verdict.untestable


def test_a_finding_names_its_figures() -> None:
    by_key = {f.key: f for f in judge(measured(record("BERT", "subword", line([0.05, 0.25, 0.15]))))}
    assert by_key["subword"].because == "BERT 0.250 at block.0"
    assert by_key["subword"].models == ("BERT",)


# Models and a run.


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"van"}))
def test_sizes_of_full_models_are_the_papers(family: str) -> None:
    """Sizes of the base models of each family, as their configurations on the hub have them."""
    config = FAMILIES[family].config(transformers, SCALES[Size.full])
    sizes = {
        "t5": ("d_model", 768),
        "byt5": ("num_layers", 18),
        "whisper": ("d_model", 768),
        "gpt2": ("n_embd", 768),
        "mit": ("hidden_sizes", [32, 64, 160, 256]),
        "resnet": ("hidden_sizes", [256, 512, 1024, 2048]),
        "efficientnet": ("hidden_dim", 1280),
        "convnext": ("depths", [3, 3, 9, 3]),
        "cvt": ("embed_dim", [64, 192, 384]),
    }
    name, expected = sizes.get(family, ("hidden_size", 768))
    assert getattr(config, name) == expected


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path, Options, list[str]]:
    """Every family, a model of our own, and lines that cannot be measured."""
    pytest.importorskip("sklearn", reason="the photographs are scikit-learn's")
    folder = tmp_path_factory.mktemp("paper")
    tiny.saved("bert", folder / "mine")
    sounds = tiny_senses.write_sounds(folder / "sounds")
    models = listed(
        folder,
        "mine lines=words.txt\nmine name=wrong figure=vision\nno/such/model\nmine name=speechless lines=missing.txt\n"
        "package:no_such_package/model name=absent\nrandom:all\n",
    )
    (folder / "words.txt").write_text("\n".join(tiny.words(30, seed=i) for i in range(5)), encoding="utf-8")
    said: list[str] = []
    options = Options(
        size=Size.smoke,
        out=folder / "out",
        models=models,
        text=(TEXT,),
        sounds=(sounds,),
        device="cpu",
        say=said.append,
    )
    return run(LAYERS, options), folder, options, said


def test_every_family_is_measured(outcome: tuple[Outcome, Path, Options, list[str]]) -> None:
    records = {record["name"]: record for record in outcome[0].measured["models"]}
    titles = {f"random {family.title}" for name, family in FAMILIES.items() if name != "van"}
    assert {"mine", "untrained mine"} | titles <= records.keys()
    assert records["untrained mine"]["control_of"] == "mine"
    assert [line["name"] for line in records["random T5"]["lines"]] == ["encoder", "decoder"]
    # Characters, molecules, characters; stages: one line each.
    assert len(records["random CANINE"]["lines"]) == len(records["random MiT"]["lines"]) == 1
    assert records["random wav2vec 2.0"]["read"].endswith("2 clips")
    # The token-type row that all tokens share is a third of the embedding's variance.
    assert records["random BERT"]["lines"][0]["mean_cosine"][0] == pytest.approx(1 / 3, abs=0.06)
    # Byte-level GPT-2 has none: what is left is that tokens come again.
    assert abs(records["random GPT-2"]["lines"][0]["mean_cosine"][0]) < 0.1


def test_what_cannot_be_measured_is_told(outcome: tuple[Outcome, Path, Options, list[str]]) -> None:
    skipped = outcome[0].skipped
    assert "there is no folder 'no/such/model'" in skipped["model"]
    assert skipped["absent"] == "the package no_such_package is not installed: pip install no-such-package"
    assert "preprocessor_config.json" in skipped["wrong"]
    assert skipped["speechless"] == "lines: there is no file missing.txt"
    assert "not tried" in skipped["bert-base-uncased, roberta-base, gpt2, t5-base"]
    assert "no such architecture" in skipped["MANTa-LM"]


def test_a_run_tells_tables_and_pictures(outcome: tuple[Outcome, Path, Options, list[str]]) -> None:
    beside, random = outcome[0].tables()
    assert [row[0] for row in beside.rows] == ["mine", "untrained mine"]
    assert len(random.rows) <= 30
    assert {picture.name for picture in outcome[0].draw()} == {"layers", "trained"}
    assert "text: words.txt, 5 lines, jargon-excerpt.txt" in outcome[0].setting
    written = json.loads((outcome[2].out / "layers" / "outcome.json").read_text(encoding="utf-8"))
    assert written["measured"]["models"] == outcome[0].measured["models"]


def test_scans_are_kept_and_those_of_drift(outcome: tuple[Outcome, Path, Options, list[str]]) -> None:
    first, folder, options, said = outcome
    # What could not be measured is tried again.
    tried = [sentence for sentence in said if sentence.removeprefix("scanning ") in first.skipped]
    said.clear()
    drift = run(DRIFT, options)
    assert said == tried
    said.clear()
    assert drift.measured["models"] == first.measured["models"]
    assert {picture.name for picture in drift.draw()} == {"trained", "untrained"}
    (folder / "words.txt").write_text(tiny.words(60), encoding="utf-8")
    run(DRIFT, options)
    assert said == ["scanning mine", "scanning untrained mine", *tried]
