"""What docs/families says runs: its commands and its Python, on tiny models under the names that it uses."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_senses
import torch
import transformers

from fastaniso import cli

DOCS = Path(__file__).parent.parent / "docs" / "families"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    """Pictures are other tests' and take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastaniso.scanning.result.save_pictures", lambda folder, pictures: [])
        yield patch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Path:
    """Models under their hub ids, which a folder of that name comes before, and the data that the pages name."""
    folder = tmp_path_factory.mktemp("docs")
    tiny.saved("gpt2", folder / "openai-community" / "gpt2")
    for name, family in (
        ("facebook/wav2vec2-base", "wav2vec2"),
        ("openai/whisper-tiny", "whisper"),
        ("google/vit-base-patch16-224", "vit"),
        ("facebook/dinov2-with-registers-base", "dinov2_registers"),
        ("microsoft/resnet-50", "resnet"),
    ):
        tiny_senses.saved(family, folder / name)
    small: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
    for name, config, tokenizer in (
        ("canine-s", transformers.CanineConfig(**small, num_hash_buckets=512), tiny.canine_tokenizer(patch)),
        (
            "byt5-small",
            transformers.T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=48, num_heads=4, num_layers=2),
            transformers.ByT5Tokenizer(),
        ),
    ):
        transformers.AutoModel.from_config(config).save_pretrained(folder / "google" / name)
        tokenizer.save_pretrained(folder / "google" / name)
    tiny_senses.write_sounds(folder / "recordings")
    tiny_senses.write_photos(folder / "photos")
    (folder / "wiki.txt").write_text(tiny.words(300))
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(
        arrow.table({"body": [tiny.words(400)]}), folder / "articles.parquet"
    )
    return folder


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_a_page_runs(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    names: dict[str, Any] = {"causal_model": tiny.model("llama")}
    ran = 0
    for kind, code in BLOCK.findall((DOCS / page).read_text()):
        if kind == "python":
            exec(compile(code, page, "exec"), names)
            ran += 1
            continue
        for line in code.splitlines():
            if line.startswith("fastaniso "):
                monkeypatch.setattr(sys, "argv", [*shlex.split(line, comments=True), "--quiet"])
                with pytest.raises(SystemExit) as ended:
                    cli.main()
                assert ended.value.code in (0, None), f"{line}: {capsys.readouterr().err}"
                ran += 1
    assert ran >= 2
