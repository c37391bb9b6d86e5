"""``fastaniso.probe`` in training: what measuring one step in ten adds to ten steps of a small Transformer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from bench.harness import Row, interleave
from bench.machine import use_threads
from bench.options import Options, row
from fastaniso.integrations import Watch

STEPS = 10
SEQUENCES, VOCABULARY = 4, 1000
SIZE, QUICK = (4, 256, 128), (2, 32, 8)
"""Blocks, their width, and tokens a sequence."""

BARE, PROBED = "10 training steps", "10 training steps, one probed"


class Model(nn.Module):
    """An encoder over random ids that predicts them."""

    def __init__(self, layers: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, dim)
        block = nn.TransformerEncoderLayer(dim, 4, 4 * dim, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(dim, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(self.embed(ids)))
        return logits


class Loop:
    """Training steps that are watched, or not, with the logs that a run would make."""

    def __init__(self, size: tuple[int, int, int], **watched: object) -> None:
        torch.manual_seed(0)
        layers, dim, length = size
        self._model = Model(layers, dim)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), 1e-4)
        self._ids = torch.randint(VOCABULARY, (SEQUENCES, length))
        self._watch = Watch(self._model, **watched) if watched else None  # type: ignore[arg-type]
        self._number = 0

    def run(self) -> None:
        for _ in range(STEPS):
            if self._watch is None:
                self._step()
            else:
                with self._watch.step(self._number):
                    self._step()
            self._number += 1

    def _step(self) -> None:
        loss = nn.functional.cross_entropy(self._model(self._ids).flatten(0, 1), self._ids.flatten())
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


def run(options: Options) -> list[Row]:
    """Ten steps as they are, with one probed and logged, that with scatters, and with all ten probed."""
    size = layers, dim, length = QUICK if options.quick else SIZE
    options.say(f"probe: {STEPS} steps of {layers} blocks of {dim} over {SEQUENCES} × {length} tokens")
    loops: dict[str, Callable[[], Loop]] = {
        BARE: partial(Loop, size),
        PROBED: partial(Loop, size, every=STEPS),
        f"{PROBED}, gram": partial(Loop, size, every=STEPS, gram=True),
        "10 training steps, all probed": partial(Loop, size, every=1, log_every=STEPS),
    }
    threads = options.most_threads
    use_threads(threads)
    timings = interleave({name: loop().run for name, loop in loops.items()}, seconds=30, rounds=options.rounds(most=12))
    rows = SEQUENCES * length, dim, "float32"
    # The limit is the bare steps: a share of .97 is 3 % more.
    return [
        row("probe", name, "torch" if name == BARE else "cpu", rows, threads, timing, limit=timings[BARE].p50, kind="")
        for name, timing in timings.items()
    ]
