"""The measurement: embeddings with a common bias of growing norm through untrained blocks, seed by seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import fastaniso
from fastaniso.paper.models.records import Line, Record, name_of
from fastaniso.paper.models.scans import measure_trained
from fastaniso.paper.options import Options
from fastaniso.paper.untrained_block.block import KINDS, STD, Block, Passed, untrained
from fastaniso.paper.untrained_block.scores import histogram, scores
from fastaniso.paper.untrained_block.sizes import AMOUNTS, DIM, HEADS, KNOWN_NORMS, VOCABULARY, Amount

AT_ONCE = 4
"""Sequences that go through a block at a time."""
FEW = 2
"""Sequences that tell the mean cosine of a seed: its direction and weights move it more than its rows do."""


@dataclass(frozen=True)
class World:
    """What a seed fixes. Drawn on the CPU in float32, so that it is the same in every precision and on every device."""

    embeddings: Tensor  # (B, T, d): of B sequences of T tokens drawn from the table
    direction: Tensor  # (d,), of norm 1
    blocks: dict[str, Block]

    def rows(self, norm: float, sequences: int) -> Tensor:
        """The first embeddings, a bias of this norm added to each."""
        return self.embeddings[:sequences] + norm * self.direction


def measure(options: Options) -> dict[str, Any]:
    """Every block of every seed at every norm of the bias; float64 beside float32 once."""
    amount = AMOUNTS[options.size]
    if options.seeds is not None:
        amount = replace(amount, seeds=options.seeds)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    seeds = list(range(1, amount.seeds + 1))
    points: list[dict[str, Any]] = []
    histograms: list[dict[str, Any]] = []
    float64: dict[str, Any] | None = None
    for seed in seeds:
        options.say(f"untrained-block: seed {seed} of {amount.seeds}, {len(amount.norms)} norms of the bias")
        world = world_of(seed, amount, amount.dtype, device)
        for norm in amount.norms:
            points += ({"seed": seed, **point} for point in _points(world, norm, amount))
        if seed == seeds[0]:
            histograms = [_histogram(world, norm, amount) for norm in amount.drawn]
            float64 = _against_float64(world, seed, amount, device) if amount.checked else None
    options.say(f"untrained-block: BERT's cosines at three norms of the bias, further seeds: {amount.more_seeds}")
    more = [
        point
        for seed in range(len(seeds) + 1, len(seeds) + 1 + amount.more_seeds)
        for point in _cosines(seed, amount, device)
    ]
    trained = measure_trained(options)
    return {
        "dim": DIM,
        "heads": HEADS,
        "vocabulary": VOCABULARY,
        "std": STD,
        "length": amount.length,
        "seeds": seeds,
        "norms": list(amount.norms),
        "sequences": {kind: _sequences(kind, amount) for kind in KINDS},
        "dtype": str(amount.dtype).removeprefix("torch."),
        "points": points,
        "more_points": more,
        "histograms": histograms,
        "float64": float64,
        "trained": [norms_of_layers(record, line) for record in trained["models"] for line in record["lines"]],
        "skipped": trained["skipped"],
    }


@torch.inference_mode()
def world_of(
    seed: int, amount: Amount, dtype: torch.dtype, device: torch.device, kinds: Sequence[str] = tuple(KINDS)
) -> World:
    """A table of embeddings N(0, .02), sequences of it, a direction N(0, I), and the blocks."""
    generator = torch.Generator().manual_seed(seed)
    table = STD * torch.randn(VOCABULARY, DIM, generator=generator)
    direction = torch.randn(DIM, generator=generator)
    blocks = {
        kind: untrained(KINDS[kind], dim=DIM, heads=HEADS, generator=generator, dtype=dtype, device=device)
        for kind in kinds
    }
    # Last, so that a seed's weights are the same however many sequences there are.
    shape = (max(amount.sequences, amount.other_sequences), amount.length)
    ids = torch.randint(VOCABULARY, shape, generator=generator)
    unit = direction / direction.norm()
    return World(table[ids].to(device, dtype), unit.to(device, dtype), blocks)


@torch.inference_mode()
def through(block: Block, rows: Tensor) -> Passed:
    """``rows (B, T, d)`` through a block, a few sequences at a time."""
    parts = [block(some) for some in torch.split(rows, AT_ONCE)]
    return Passed(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _points(world: World, norm: float, amount: Amount) -> Iterator[dict[str, Any]]:
    for kind, block in world.blocks.items():
        rows = world.rows(norm, _sequences(kind, amount))
        passed = through(block, rows)
        point = {
            "kind": kind,
            "norm": norm,
            "input": cosine_and_norm(rows),
            "output": cosine_and_norm(passed.output),
            "without_attention": cosine_and_norm(passed.without_attention),
            "queries": by_head(passed.queries),
            "keys": by_head(passed.keys),
            "scores": scores(passed.queries, passed.keys, causal=block.kind.causal),
        }
        if not block.kind.norm_first:
            point["mean_query_error"] = mean_query_error(rows, block.query, passed.queries)
        yield point


def _cosines(seed: int, amount: Amount, device: torch.device) -> Iterator[dict[str, Any]]:
    few = replace(amount, sequences=FEW, other_sequences=FEW)
    world = world_of(seed, few, amount.dtype, device, kinds=("bert",))
    for norm in KNOWN_NORMS:
        rows = world.rows(norm, FEW)
        passed = through(world.blocks["bert"], rows)
        parts = {"input": rows, "output": passed.output, "without_attention": passed.without_attention}
        yield {"seed": seed, "norm": norm, **{name: cosine_and_norm(part) for name, part in parts.items()}}


def cosine_and_norm(rows: Tensor) -> dict[str, float]:
    """Mean cosine of all rows, of all sequences, and mean norm.

    As float64, since a bias of 10⁴ leaves cosines 10⁻⁹ from one.
    """
    described = fastaniso.describe(rows.double(), gram=False)
    return {"cosine": described.mean_cosine, "norm": described.norms.mean}


def by_head(heads: Tensor) -> dict[str, float]:
    """The same of queries or keys ``(B, H, T, k)``: within each head, then the mean of the heads."""
    found = [cosine_and_norm(heads[:, head]) for head in range(heads.shape[1])]
    return {name: sum(one[name] for one in found) / len(found) for name in ("cosine", "norm")}


def mean_query_error(rows: Tensor, weight: Tensor, queries: Tensor) -> float:
    """‖E(Q) − W_Q x̄‖/‖E(Q)‖ (the paper's equation 1; b_Q is zero at the start): zero but for rounding."""
    mean = mean_row(queries.transpose(1, 2).flatten(2))
    expected = weight.double() @ mean_row(rows)
    return float((mean - expected).norm() / mean.norm())


def mean_row(rows: Tensor) -> Tensor:
    """The mean of the rows, float64."""
    moments = fastaniso.Accumulator().update(rows).moments
    return moments.sum / moments.kept


def norms_of_layers(record: Record, line: Line) -> dict[str, Any]:
    """Mean norms of the states of a trained model, layer by layer, over √d."""
    layers = zip(line["norm"], line["dim"], line["is_layer"], strict=True)
    shares = [norm / dim**0.5 for norm, dim, is_layer in layers if is_layer and norm is not None]
    return {"name": name_of(record, line), "data": record["data"], "norm_over_root": shares}


def _histogram(world: World, norm: float, amount: Amount) -> dict[str, Any]:
    passed = through(world.blocks["bert"], world.rows(norm, amount.sequences))
    return {"norm": norm, **histogram(passed.queries, passed.keys)}


def _against_float64(world: World, seed: int, amount: Amount, device: torch.device) -> dict[str, Any]:
    """How far the run's precision is from float64, on the same draws: the largest difference over the checked norms.

    Of the output's mean cosine absolute; relative of one less that cosine, and of the scores.
    """
    exact = world_of(seed, amount, torch.float64, device)
    sequences = min(FEW, amount.sequences)
    differences = {"cosine": 0.0, "apart": 0.0, "row_std": 0.0, "row_max": 0.0}
    for norm in amount.checked:
        ours, theirs = (_checked(one.blocks["bert"], one.rows(norm, sequences)) for one in (world, exact))
        for name, value in theirs.items():
            difference = abs(ours[name] - value) / (1 if name == "cosine" else value)
            differences[name] = max(differences[name], difference)
    return {"norms": list(amount.checked), "sequences": sequences, "differences": differences}


def _checked(block: Block, rows: Tensor) -> dict[str, float]:
    passed = through(block, rows)
    cosine = cosine_and_norm(passed.output)["cosine"]
    seen = scores(passed.queries, passed.keys, causal=False)
    return {"cosine": cosine, "apart": 1 - cosine, "row_std": seen["row_std"], "row_max": seen["max"]["mean"]}


def _sequences(kind: str, amount: Amount) -> int:
    return amount.sequences if kind == "bert" else amount.other_sequences
