"""Probes in training: files, TensorBoard and Weights & Biases, plain loops, Trainers, and two processes."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from nets import TOKENS, Net, hooks_of, net
from ranks import Recorder, hidden_and_mask, of_rank
from torch import Tensor

import fastaniso
from fastaniso import integrations
from fastaniso.integrations import CSVLogger, JSONLLogger, TensorBoardLogger, WandbLogger, Watch

SCALARS = {"mean_cosine/block.0": 0.5, "drift/encoder.layer/0": float("nan")}


def test_names_are_there() -> None:
    assert sorted(integrations.__all__) == integrations.__all__ == dir(integrations)
    assert all(getattr(integrations, name).__doc__ for name in integrations.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Callback'"):
        _ = integrations.Callback


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("TrainerProbe", "transformers"),
        ("AnisotropyMetric", "torchmetrics"),
        ("LightningProbe", "lightning"),
    ],
)
def test_what_is_missing_is_said(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.startswith("fastaniso.integrations.")]:
        monkeypatch.delitem(sys.modules, module)
    for missing in (package, "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{name} needs the package {package}.* pip install 'fastaniso\["):
        getattr(integrations, name)


def test_the_other_package_of_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    other = types.ModuleType("pytorch_lightning")
    other.Callback = type("Callback", (), {})  # type: ignore[attr-defined]
    for module in [m for m in sys.modules if m.startswith("fastaniso.integrations.")]:
        monkeypatch.delitem(sys.modules, module)
    for name, module in (("lightning", None), ("lightning.pytorch", None), ("pytorch_lightning", other)):
        monkeypatch.setitem(sys.modules, name, module)
    assert issubclass(integrations.LightningProbe, other.Callback)


def test_loggers_that_miss_their_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for missing in ("wandb", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match="pip install wandb"):
        WandbLogger()
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard"):
        TensorBoardLogger(tmp_path)


def test_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    for step in (0, 10):
        logger = JSONLLogger(path)  # a run that goes on appends
        logger.log(SCALARS, step)
        logger.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": step, "mean_cosine/block.0": 0.5, "drift/encoder.layer/0": None} for step in (0, 10)]


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for step in (0, 10):
        logger = CSVLogger(path)
        logger.log(SCALARS, step)
        logger.close()
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(r["step"], r["metric"], r["site"], r["value"]) for r in rows] == [
        (step, *row)
        for step in ("0", "10")
        for row in (("mean_cosine", "block.0", "0.5"), ("drift", "encoder.layer/0", "nan"))
    ]
    path.write_text("step,loss\n")
    with pytest.raises(ValueError, match=r"has the columns step, loss, expected step, metric, site, value"):
        CSVLogger(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's and protobuf's own
def test_tensorboard(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path, prefix="run/")
    for step in (0, 10):
        logger.log({"mean_cosine/block.0": 0.25 + step}, step)
    logger.close()
    read = events.EventAccumulator(str(tmp_path))
    read.Reload()
    points = [(point.step, point.value) for point in read.Scalars("run/mean_cosine/block.0")]
    assert points == [(0, 0.25), (10, 10.25)]


@pytest.mark.filterwarnings("ignore")  # wandb's own
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with pytest.raises(ValueError, match=r"no run of Weights & Biases has begun; call wandb\.init"):
        WandbLogger()
    quick = wandb.Settings(console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True)
    run = wandb.init(mode="offline", dir=tmp_path, project="test", settings=quick)
    try:
        run.log({"loss": 1.0}, step=7)
        logger = WandbLogger()
        logger.log({"mean_cosine/block.0": 0.5}, 3)  # a step below the run's own is not lost
        logger.close()
        assert run.summary["fastaniso/mean_cosine/block.0"] == 0.5
        assert run.summary["fastaniso/step"] == 3
        assert wandb.run is run
    finally:
        run.finish()
    assert list(tmp_path.rglob("*.wandb"))


def train(model: Net, watch: Watch, steps: int) -> list[int]:
    """Numbers of the steps in which the model had hooks."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    hooked = []
    for number in range(steps):
        with watch.step(number):
            if hooks_of(model):
                hooked.append(number)
            model(TOKENS).square().mean().backward()
            optimizer.step()
        assert hooks_of(model) == 0
    return hooked


def test_a_plain_loop() -> None:
    model, recorder = net(), Recorder()
    watch = Watch(model, every=2, log_every=4, loggers=[recorder])
    assert train(model, watch, 9) == [0, 2, 4, 6, 8]
    watch.close()
    assert recorder.closed
    assert list(recorder.logged) == [0, 4, 8]
    # A log tells of what was seen since the last one: steps 2 and 4, then 6 and 8.
    assert [logged["rows/block.0"] for logged in recorder.logged.values()] == [12, 24, 24]
    values = [logged["mean_cosine/block.2"] for logged in recorder.logged.values()]
    assert len(set(values)) == 3
    assert watch.results is not None
    assert watch.results["block.2"].mean_cosine == values[-1]


def test_steps_can_be_named() -> None:
    model, recorder = net(), Recorder()
    watch = Watch(model, every=[0, 1, 2, 4, 8], loggers=[recorder])
    assert train(model, watch, 8) == [0, 1, 2, 4]
    assert list(recorder.logged) == [0, 1, 2, 4]
    for wrong in ([], [1, -2], [0.5], "12", True):
        with pytest.raises(ValueError, match="every: expected a positive int"):
            Watch(model, every=wrong)


def test_a_loop_that_fails_and_one_that_is_told_its_model_late() -> None:
    model, recorder = net(), Recorder()
    watch = Watch(sites="trunk.*", every=3, loggers=[recorder], gram="unit")
    with pytest.raises(ValueError, match="give the module to watch"):
        watch.begin(0)
    with pytest.raises(IndexError), watch.step(0, model):
        model(TOKENS + 99)
    assert hooks_of(model) == 0
    for number in range(3, 5):
        with watch.step(number, model) as probe:
            assert (probe is not None) == (number == 3)
            if probe is not None:
                probe.mask(torch.ones(2, 6, dtype=torch.bool).tril())
            model(TOKENS)
    assert recorder.logged[3]["rows/trunk.1"] == 3
    assert recorder.logged[3]["cosine_std/trunk.1"] > 0
    for name in ("every", "log_every"):
        with pytest.raises(ValueError, match=f"{name}: expected a positive int, got 0"):
            Watch(model, **{name: 0})


def assert_metric_is(values: dict[str, Tensor], expected: fastaniso.Description) -> None:
    assert values["rows"] == expected.n
    assert values["mean_cosine"].item() == pytest.approx(expected.mean_cosine, abs=1e-7)
    assert values["drift_norm_of_mean"].item() == pytest.approx(expected.drift.norm_of_mean, rel=1e-7)
    assert values["norms_max"].item() == expected.norms.max
    assert values["norms_std"].item() == pytest.approx(expected.norms.std, rel=1e-6)


def test_the_metric_counts_and_merges() -> None:
    pytest.importorskip("torchmetrics")
    hidden, mask = hidden_and_mask()
    bad = torch.cat((hidden, torch.zeros(4, 1, 6)), 1)
    one, other = integrations.AnisotropyMetric(6), integrations.AnisotropyMetric(6)
    one.update(hidden[:2], mask[:2])
    of_batch = other(hidden[2:3], mask[2:3])
    assert of_batch["rows"] == mask[2].sum()
    other.update(bad[3:], torch.cat((mask[3:], torch.ones(1, 1, dtype=torch.bool)), 1))
    one.merge_state(other)
    assert_metric_is(one.compute(), fastaniso.describe(hidden, mask=mask))
    assert one.compute()["rows_invalid"] == 1
    assert fastaniso.Moments.empty(6).merge(one.state).kept == mask.sum()
    one.reset()
    assert one.update(hidden) is None
    assert_metric_is(one.compute(), fastaniso.describe(hidden))
    assert {reduction.__name__ for reduction in one._reductions.values()} == {
        "dim_zero_sum",
        "dim_zero_min",
        "dim_zero_max",
    }


def test_the_metric_refuses() -> None:
    pytest.importorskip("torchmetrics")
    with pytest.raises(ValueError, match="dim: expected the numbers in a row"):
        integrations.AnisotropyMetric(0)
    with pytest.raises(ValueError, match=r"'isoscore' needs raw scatter, which an AnisotropyMetric does not have"):
        integrations.AnisotropyMetric(6, ["isoscore"])
    with pytest.raises(ValueError, match="hidden: expected rows of dim=6 numbers, got 5"):
        integrations.AnisotropyMetric(6).update(torch.randn(3, 5))


def test_two_processes_find_what_one_would(tmp_path: Path) -> None:
    pytest.importorskip("torchmetrics")
    # This process is rank 0, because importing torchmetrics takes as long as all else.
    other = torch.multiprocessing.get_context("spawn").Process(target=of_rank, args=(1, str(tmp_path)))
    threads = torch.get_num_threads()
    other.start()
    try:
        of_rank(0, str(tmp_path))
        other.join(60)
        assert other.exitcode == 0
    finally:
        torch.set_num_threads(threads)
        other.kill()
    first, second = json.loads((tmp_path / "found.json").read_text())
    hidden, mask = hidden_and_mask()
    for found in (first, second):
        assert_metric_is(
            {k: torch.tensor(v, dtype=torch.float64) for k, v in found["metric"].items()},
            fastaniso.describe(hidden, mask=mask),
        )
        assert found["rows of both"] == int(mask.sum()) + 40
    assert first["logged"] == {"0": 10, "2": 10}
    assert second["logged"] == {}  # rank 0 logs
    assert first["mean"] == second["mean"]
    assert second["imported"] == []
    model = net()
    with fastaniso.probe(model) as probe:
        model(TOKENS)
    for sites, mean in first["sharded"]:
        assert sites == list(probe.sites)
        assert mean == pytest.approx(probe.results()["block.2"].mean_cosine, abs=1e-6)
    assert first["silent"] == []


def test_all_ranks_needs_ranks() -> None:
    model = net()
    with fastaniso.probe(model) as probe:
        model(TOKENS)
    with pytest.raises(RuntimeError, match=r"torch\.distributed is not initialised"):
        probe.results(all_ranks=True)


@pytest.mark.filterwarnings("ignore")  # accelerate's and transformers' own
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_trainer_of_hugging_face(compiled: bool, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    # It imports other packages, which may be of another time than transformers.
    pytest.importorskip("transformers.trainer", exc_type=ImportError)
    import transformers

    torch._dynamo.reset()
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(tiny.CONFIGS["bert"]())
    batch = {
        "input_ids": torch.full((9,), 5),
        "attention_mask": (torch.arange(9) < 4).long(),
        "labels": torch.full((9,), 5),
    }
    recorder = Recorder()
    callback = integrations.TrainerProbe(every=2, loggers=[recorder, JSONLLogger(tmp_path / "log.jsonl")])
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        torch_compile=compiled,
        torch_compile_backend="eager" if compiled else None,
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=[batch] * 40, callbacks=[callback])
    trainer.train()
    assert recorder.closed
    # Steps 0 and 2 of 0 to 3, told of when they are done; two batches of two sequences of four tokens each.
    assert list(recorder.logged) == [1, 3]
    assert [logged["rows/block.1"] for logged in recorder.logged.values()] == [16, 16]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
    assert callback.results is not None
    assert callback.results.masks["block.1"] == ("attention_mask",)
    assert hooks_of(model) == 0
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_the_trainer_of_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.loggers import CSVLogger as LightningLogger

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
        """Calls a part of itself, never its own forward."""

        def __init__(self, fail_at: int) -> None:
            super().__init__()
            self.net = net()
            self.fail_at = fail_at
            self.geometry = integrations.AnisotropyMetric(20, ["mean_cosine"])

        def training_step(self, batch: Tensor, index: int) -> Tensor:
            if index == self.fail_at:
                raise IndexError("as asked")
            logits = self.net(batch)
            self.geometry.update(logits)
            return logits.square().mean()

        def on_train_epoch_end(self) -> None:
            self.log_dict({name: value.float() for name, value in self.geometry.compute().items()})

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    def fit(module: Any, callback: Any) -> None:
        trainer = lightning.Trainer(
            max_steps=5,
            accelerator="cpu",
            callbacks=[callback],
            logger=LightningLogger(tmp_path, name="run", version=0),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(module, torch.utils.data.DataLoader(TOKENS[:1].repeat(5, 1), batch_size=1))

    recorder = Recorder()
    callback = integrations.LightningProbe(every=2, loggers=[recorder])
    module = Module(fail_at=-1)
    before = hooks_of(module)
    fit(module, callback)
    assert hooks_of(module) == before
    assert recorder.closed
    assert list(recorder.logged) == [1, 3, 5]
    assert list(recorder.logged[1])[:1] == ["rows/embedding"]
    assert [logged["rows/block.2"] for logged in recorder.logged.values()] == [6, 6, 6]
    text = (tmp_path / "run" / "version_0" / "metrics.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    logged = [float(row["fastaniso/mean_cosine/block.1"]) for row in rows if row["fastaniso/mean_cosine/block.1"]]
    assert logged == pytest.approx([entry["mean_cosine/block.1"] for entry in recorder.logged.values()])
    assert [float(row["rows"]) for row in rows if row.get("rows")] == [30]

    module = Module(fail_at=2)
    with pytest.raises(IndexError, match="as asked"):
        fit(module, integrations.LightningProbe(every=1))
    assert hooks_of(module) == before


def test_the_example_collapses_and_the_other_run_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).parents[1] / "examples" / "watch_collapse.py"
    spec = importlib.util.spec_from_file_location("watch_collapse", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "STEPS", 25)
    means, logs, losses = {}, {}, {}
    for name, repel in example.RUNS.items():
        losses[name] = example.train(repel, tmp_path / f"{repel}.jsonl")
        logs[name] = [json.loads(line) for line in (tmp_path / f"{repel}.jsonl").read_text().splitlines()]
        means[repel] = [line["mean_cosine/block.3"] for line in logs[name]]
    assert means[False][0] == means[True][0] < 0.3
    assert means[False][-1] > 0.95
    assert means[True][-1] < 0.1
    example.draw(logs, losses).savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_the_benchmark_runs() -> None:
    from bench import probe
    from bench.options import Options

    rows = probe.run(Options(threads=(1,), quick=True))
    assert [row.contender for row in rows][:2] == [probe.BARE, probe.PROBED]
    assert all(row.share_of_limit for row in rows)
