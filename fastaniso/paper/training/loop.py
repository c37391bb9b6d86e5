"""Train one model from one seed, measure it at log-spaced steps, and go on where an earlier run was stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastaniso.integrations import Watch
from fastaniso.paper.training.kinds import IGNORED, Kind, loss
from fastaniso.paper.training.probing import AT_ONCE, measure_step
from fastaniso.paper.training.record import Record, digest, load, save
from fastaniso.paper.training.sizes import Budget, log_spaced
from fastaniso.paper.training.words import Text, probe_sequences, token_ids, train_tokenizer

WARM_UP = 0.1
WEIGHT_DECAY = 0.01
LARGEST_GRADIENT = 1.0


class Training:
    """A kind of model, on one text with one tokenizer; ``run`` trains it from a seed."""

    def __init__(self, kind: Kind, budget: Budget, text: Text, folder: Path, device: str) -> None:
        """``folder`` takes the states of runs, and finished models."""
        self.kind, self.budget = kind, budget
        self.steps = budget.steps[kind.name]
        self._text, self._folder, self._device = text, folder, torch.device(device)
        self.tokenizer = train_tokenizer(text.training, budget.vocabulary, budget.length, enclose=kind.encloses)
        self.ids = token_ids(self.tokenizer, text.training)
        if len(self.ids) <= budget.length:
            raise ValueError(
                f"text: {len(self.ids)} tokens to train on are fewer than the {budget.length + 1} of one sequence; "
                "give a longer text"
            )
        self.sequences = probe_sequences(self.tokenizer, text.held_out, budget.probe)
        self.measured_at = log_spaced(self.steps)

    def run(self, seed: int, say: Callable[[str], None], *, keep_points: bool) -> Record:
        """The measurements of a whole training; what an earlier run has done of it is not done again."""
        told = {"kind": self.kind.name, "seed": seed, "budget": asdict(self.budget), "text": self._text.digest}
        name = digest({**told, "device": self._device.type, "points": keep_points})
        file = self._folder / "runs" / f"{self.kind.name}-{seed}-{name}.pt"
        cuda = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            network = self.kind.build(self.budget, self.tokenizer).to(self._device).train()
            optimizer = torch.optim.AdamW(_groups(network), lr=0.0, betas=(0.9, 0.98), eps=1e-6)
            record, begin = self._go_on(file, network, optimizer)
            watch = Watch(network, every=self.measured_at, loggers=[_Live(record)])
            for step in range(begin, self.steps + 1):
                if step in self.measured_at:
                    self._measure(step, network, record, keep_points)
                    say(self._progress(seed, step, record))
                if step == self.steps:
                    break
                with watch.step(step):
                    value = self._update(network, optimizer, seed, step)
                if step in self.measured_at:
                    record.training_loss.append(float(value))
                if (step + 1) % self.budget.keep_every == 0:
                    save(file, record, step=step + 1, **_state(network, optimizer))
            if begin <= self.steps:
                # A run that is at its end needs no optimizer any more.
                save(file, record, step=self.steps + 1, network=network.state_dict())
        if seed == 0:
            self._save_model(network)
        return record

    def baseline(self) -> float:
        """Cross-entropy of the held-out targets by how often tokens are in the text, one added to each, in nats."""
        counts = torch.bincount(self.ids, minlength=len(self.tokenizer)).double() + 1
        _, targets = self.kind.held_out(self.sequences, self.tokenizer)
        return -float((counts / counts.sum()).log()[targets[targets != IGNORED]].mean())

    def _go_on(self, file: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Record, int]:
        earlier = load(file)
        if earlier is None:
            return Record(), 0
        record, state = earlier
        network.load_state_dict(state["network"])
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
            if self._device.type == "cuda":
                torch.cuda.set_rng_state(state["random_cuda"], self._device)
        return record, int(state["step"])

    def _measure(self, step: int, network: nn.Module, record: Record, keep_points: bool) -> None:
        point, vectors = measure_step(network, self.sequences, self.budget.probe.points)
        record.steps.append(step)
        record.measured.append(point)
        record.held_out_loss.append(self._held_out_loss(network))
        if keep_points:
            record.points.append([vectors.points(call) for call in point["calls"]])

    def _held_out_loss(self, network: nn.Module) -> float:
        inputs, targets = self.kind.held_out(self.sequences, self.tokenizer)
        summed, predicted = 0.0, 0
        network.eval()
        with torch.no_grad():
            for start in range(0, len(inputs), AT_ONCE):
                parts = (inputs, targets, self.sequences.attention_mask)
                part = [whole[start : start + AT_ONCE].to(self._device) for whole in parts]
                count = int((part[1] != IGNORED).sum())
                summed += float(loss(network, *part)) * count if count else 0.0
                predicted += count
        network.train()
        return summed / predicted

    def _update(self, network: nn.Module, optimizer: torch.optim.Optimizer, seed: int, step: int) -> Tensor:
        """One step of AdamW; which text it sees depends on the seed and the number of the step alone."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        inputs, targets = self.kind.batch(self.ids, self.budget, self.tokenizer, generator)
        value = loss(network, inputs.to(self._device), targets.to(self._device))
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]  # torch's own
        torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        for group in optimizer.param_groups:
            group["lr"] = self.budget.rates[self.kind.name] * _share_of_rate(step, self.steps)
        optimizer.step()
        return value.detach()

    def _progress(self, seed: int, step: int, record: Record) -> str:
        cosine = record.measured[-1]["mean_cosine"][-1]
        return (
            f"{self.kind.title}, seed {seed}: step {step} of {self.steps}, held-out loss "
            f"{record.held_out_loss[-1]:.3f}, mean cosine of the last block {cosine:.3f}"
        )

    def _save_model(self, network: nn.Module) -> None:
        """``models/KIND`` as ``from_pretrained`` reads it, with its tokenizer; a model that was there is replaced."""
        folder = self._folder / "models" / self.kind.name
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
        network.save_pretrained(temporary)  # type: ignore[operator]  # transformers' own
        self.tokenizer.save_pretrained(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)


class _Live:
    """Keeps what ``Watch`` logs: the mean cosine of each site over a batch of the training itself."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """One step."""
        named = (name.partition("/") for name in scalars)
        self._record.live[str(step)] = {
            site: scalars[f"mean_cosine/{site}"] for metric, _, site in named if metric == "mean_cosine"
        }

    def close(self) -> None:
        """Nothing is held back."""


def _groups(network: nn.Module) -> list[dict[str, Any]]:
    """Matrices decay, as in BERT's training; biases and the scales of norms do not."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]


def _share_of_rate(step: int, steps: int) -> float:
    """Up in a line over the first tenth, and down in a line to zero."""
    return min((step + 1) / (WARM_UP * steps), (steps - step) / ((1 - WARM_UP) * steps), 1.0)


def _state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
    device = next(network.parameters()).device
    return state | ({"random_cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})
