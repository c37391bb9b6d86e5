"""The command line end to end: what goes to stdout, what to stderr, and the exit codes."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_senses

import fastaniso
from fastaniso import cli


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved("bert", tmp_path_factory.mktemp("model"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(tiny.words(400))
    return path


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.npy"
    np.save(path, np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32))
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fastaniso", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        code = ended.value.code
        return int(code) if code is not None else 0, printed.out, printed.err

    return run


def test_scan_prints_a_table_and_writes_a_folder(run: Any, model: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, stdout, stderr = run("scan", model, "--text", text, "--max-length", 32, "--out", out)
    assert code == 0
    for name in ("embedding", "block.0", "block.2", "400 tokens in", "Spearman"):
        assert name in stdout
    assert f"under {out}" in stderr
    assert (out / "scan.json").exists()
    assert len(list((out / "states").iterdir())) == 2 * 4  # of all tokens, and of groups of sequences
    assert len(list((out / "plots").iterdir())) == 5


def test_scan_json_is_all_of_stdout_and_equals_the_function(run: Any, model: Path, text: Path) -> None:
    code, stdout, _ = run("scan", model, "--text", text, "--max-length", 32, "--json", "--max-tokens", 100)
    assert code == 0
    content = json.loads(stdout)
    result = fastaniso.scan(model, text, max_length=32, max_tokens=100)
    assert content["sites"] == json.loads(result.to_json())["sites"]
    assert content["tokens"]["kept"] == 100


def test_scan_images_and_sounds(run: Any, tmp_path: Path) -> None:
    photos = tiny_senses.write_photos(tmp_path / "photos")
    vision = tiny_senses.saved("vit", tmp_path / "vision")
    code, stdout, _ = run("scan", vision, "--images", photos, "--quiet", "--max-items", 4)
    assert code == 0
    assert "64 patches in 4 images; dropped: 4 class token" in stdout
    sounds = tiny_senses.write_sounds(tmp_path / "sounds")
    (sounds / "corrupt.wav").write_bytes(b"RIFF")
    speech = tiny_senses.saved("hubert", tmp_path / "speech")
    code, stdout, _ = run("scan", speech, "--sounds", sounds, "--json", "--quiet", "--max-seconds", 0.3)
    assert code == 0
    tokens = json.loads(stdout)["tokens"]
    assert (tokens["unit"], tokens["item"], sum(tokens["skipped"].values())) == ("frames", "clips", 1)
    code, _, stderr = run("scan", vision, "--images", sounds, "--quiet")
    assert code == 1
    assert "no patches in" in stderr
    assert "holds images, not texts" in run("scan", vision, "--text", photos, "--quiet")[2]


def test_several_texts_after_one_option(run: Any, model: Path, text: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(tiny.words(50, seed=1))
    code, stdout, _ = run("scan", model, "--text", text, other, "--json", "--quiet")
    assert code == 0
    assert json.loads(stdout)["tokens"]["kept"] == 450


def test_quiet_says_nothing_on_stderr(run: Any, model: Path, text: Path, vectors: Path) -> None:
    assert run("scan", model, "--text", text, "--quiet", "--no-gram")[2] == ""
    assert run("measure", vectors, "--quiet")[2] == ""


def test_measure(run: Any, vectors: Path, tmp_path: Path) -> None:
    code, stdout, _ = run("measure", vectors, "--out", tmp_path / "out")
    assert code == 0
    assert "mean cosine" in stdout
    code, stdout, _ = run("measure", vectors, "--json")
    assert json.loads(stdout)["mean_cosine"] == fastaniso.measure(vectors).description.mean_cosine


def test_measure_pairs_and_neighbors(run: Any, vectors: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--pairs", "--bins", 128, "--threshold", 0.1, "--threshold", -0.1, "--neighbors", 3, "--block-rows", 100]
    code, stdout, stderr = run("measure", vectors, *options, "--out", out, "--json")
    assert code == 0
    assert f"under {out}" in stderr
    content = json.loads(stdout)
    expected = fastaniso.measure(vectors, pairs=True, bins=128, thresholds=(0.1, -0.1), neighbors=3, block_rows=100)
    assert content["pair_statistics"] == json.loads(expected.to_json())["pair_statistics"]
    assert len(content["pair_statistics"]["shares_above"]) == 2
    assert {path.stem for path in (out / "states").iterdir()} == {"vectors", "pairs", "neighbors"}
    code, stdout, _ = run("measure", vectors, *options, "--out", out)
    assert code == 0
    assert "99% quantile" in stdout
    code, stdout, stderr = run("measure", vectors, *options, "--bins", 256, "--out", out)
    assert (code, stdout) == (1, "")
    assert "choose another folder" in stderr


def test_measure_folders_and_tables(run: Any, vectors: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = np.load(vectors)
    column = pa.array(rows.tolist(), pa.list_(pa.float32()))
    folder = tmp_path / "tables"
    folder.mkdir()
    for number, part in enumerate((column[:100], column[100:])):
        parquet.write_table(pa.table({"v": part, "w": part}), folder / f"{number}.parquet")
    code, stdout, _ = run("measure", folder, "--column", "w", "--json")
    assert code == 0
    content = json.loads(stdout)
    assert content["mean_cosine"] == pytest.approx(fastaniso.measure(vectors).description.mean_cosine, abs=1e-7)
    assert [name.rpartition(":")[2] for name in content["data"]] == ["w", "w"]
    assert "name one of v, w" in run("measure", folder)[2]


def test_stdout_is_the_result_alone_even_beside_a_bar(vectors: Path) -> None:
    """On a terminal the bar is live on stderr; what is printed to a file must not end up there."""
    command = [sys.executable, "-m", "fastaniso", "measure", str(vectors), "--json"]
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout)["n"] == 300
    assert "rows/s" in done.stderr


def test_doctor(run: Any) -> None:
    code, stdout, _ = run("doctor", "--json")
    assert code == 0
    assert any(check["status"] == "ok" for check in json.loads(stdout)["checks"])
    assert run("doctor")[0] == 0


def test_version(run: Any) -> None:
    assert run("--version") == (0, f"{fastaniso.__version__}\n", "")


def test_help_tells_the_exit_codes(run: Any) -> None:
    for command in ([], ["scan"], ["measure"], ["doctor"]):
        code, stdout, _ = run(*command, "--help")
        assert code == 0
        assert "130 interrupted" in " ".join(stdout.split())


def test_exit_1_measurement_failed(run: Any, model: Path, vectors: Path, tmp_path: Path) -> None:
    rows = np.load(vectors)
    rows[7] = np.nan
    np.save(tmp_path / "nan.npy", rows)
    code, stdout, stderr = run("measure", tmp_path / "nan.npy", "--quiet")
    assert (code, stdout) == (1, "")
    assert stderr.startswith("fastaniso: ")
    assert "row 7 holds NaN or Inf" in stderr
    assert stderr.count("\n") == 1
    assert run("measure", tmp_path / "nan.npy", "--omit-invalid")[0] == 0
    (tmp_path / "empty.txt").write_text(" ")
    assert "no tokens" in run("scan", model, "--text", tmp_path / "empty.txt", "--quiet")[2]
    assert run("measure", vectors, "--memory-limit", "1 kB")[0] == 1


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_exit_1_for_files_that_would_run_code(run: Any, model: Path, text: Path, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    for suffix in ("npy", "pt", "safetensors"):
        path = tmp_path / f"evil.{suffix}"
        path.write_bytes(pickle.dumps(Evil(proof)))
        code, _, stderr = run("measure", path, "--quiet")
        assert code == 1
        assert path.name in stderr
    folder = tmp_path / "evil-model"
    folder.mkdir()
    for path in model.iterdir():
        if path.suffix == ".json":
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(proof)))
    assert run("scan", folder, "--text", text, "--quiet")[0] == 1
    assert not proof.exists()


def test_exit_1_for_damaged_weights(run: Any, model: Path, text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in model.iterdir():
        content = path.read_bytes()
        (folder / path.name).write_bytes(content[:500] if path.suffix == ".safetensors" else content)
    code, stdout, stderr = run("scan", folder, "--text", text, "--quiet")
    assert (code, stdout) == (1, "")
    assert stderr.startswith("fastaniso: ")


def test_exit_2_wrong_usage(run: Any, model: Path, text: Path) -> None:
    for arguments in (
        ["scan"],
        ["scan", model],
        ["scan", model, "--text", "nowhere.txt"],
        ["scan", model, "--text", text, "--images", text],
        ["scan", model, "--text", text, "--batch-size", 0],
        ["scan", model, "--text", text, "--dtype", "int8"],
        ["scan", model, "--text", text, "--device", "abacus"],
        ["measure"],
        ["measure", "nowhere.npy"],
        ["measure", text, "--pairs", "--bins", 63],
        ["measure", text, "--neighbors", 129],
        ["measure", text, "--threshold", 1.5],
        ["measure", text, "--no-such-option"],
        ["cure"],
    ):
        code, stdout, stderr = run(*arguments)
        assert (code, stdout) == (2, ""), arguments
        assert "Usage" in stderr


def test_exit_3_something_is_missing(
    run: Any, model: Path, text: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, stdout, stderr = run("scan", "./no/such/model", "--text", text, "--quiet")
    assert (code, stdout) == (3, "")
    assert "there is no folder './no/such/model'" in stderr
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run("measure", vectors, "--device", "cuda")[0] == 3
    monkeypatch.setitem(sys.modules, "transformers", None)
    code, _, stderr = run("scan", model, "--text", text, "--quiet")
    assert code == 3
    assert "pip install 'fastaniso[hf]'" in stderr


def test_a_hub_id_that_the_hub_does_not_have(text: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "fastaniso", "scan", "no-such/model", "--text", str(text), "--quiet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3
    assert "'no-such/model' is neither a folder with a model here nor" in done.stderr


def test_debug_shows_the_traceback(run: Any, tmp_path: Path) -> None:
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    assert "Traceback" not in run("measure", tmp_path / "cut.npy")[2]
    code, _, stderr = run("measure", tmp_path / "cut.npy", "--debug")
    assert code == 1
    assert "Traceback" in stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_exit_130_interrupted(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text(tiny.words(300_000))
    command = [sys.executable, "-m", "fastaniso", "scan", str(model), "--text", str(text), "--batch-size", "1"]
    # Its own group, as a terminal makes one; the bar on stderr tells that the scan is under way.
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": "100"},
        start_new_session=True,
        # A shell's background process ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    waited, shown = time.monotonic(), ""
    while " tokens/s" not in shown and time.monotonic() - waited < 60:
        shown += process.stderr.read(64)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stdout == ""
    assert "fastaniso: interrupted" in stderr
    assert "not complete" in stderr
    assert "Traceback" not in stderr
    kept = json.loads((tmp_path / "out" / "scan.json").read_text())
    assert not kept["complete"]
    assert kept["tokens"]["kept"] > 0


def test_help_needs_no_transformers_rich_tables_or_matplotlib() -> None:
    code = (
        "import sys; from fastaniso import cli; "
        "print([m for m in ('transformers', 'matplotlib', 'triton', 'rich.progress') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
