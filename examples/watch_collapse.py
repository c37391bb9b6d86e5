"""Watch a model collapse while it trains, and one that does not: writes both logs and a picture of them.

    python examples/watch_collapse.py --out collapse-out

A small Transformer reads two samples of the same topic and learns to represent them alike. If that is all it is asked,
the shortest way is to represent everything alike: the loss falls to zero, and so does what the states can tell apart.
With a term that pushes other topics away (InfoNCE) the same model learns the topics. The loss of the first run looks
like success; the probe shows the collapse at its beginning. Runs on a CPU in half a minute, the same bits every time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from fastaniso.integrations import JSONLLogger, Watch

TOPICS, WORDS, LENGTH, DIM, BLOCKS = 16, 64, 12, 32, 4
STEPS, EVERY = 200, 5
RUNS = {"only attraction: collapses": False, "attraction and repulsion (InfoNCE)": True}


class Reader(nn.Module):
    """Reads a sequence of words and gives one vector."""

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.embed = nn.Embedding(WORDS, DIM)
        block = nn.TransformerEncoderLayer(DIM, 4, 2 * DIM, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(block, BLOCKS, enable_nested_tensor=False)

    def forward(self, words: Tensor) -> Tensor:
        """Unit vectors (sequences, d) of words (sequences, length)."""
        return F.normalize(self.encoder(self.embed(words)).mean(1), dim=-1)


def samples(topics: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the words of a sequence are of its topic's own four, the others are any."""
    own = 4 * topics[:, None] + torch.randint(4, (len(topics), LENGTH), generator=generator)
    any_word = torch.randint(WORDS, own.shape, generator=generator)
    return torch.where(torch.rand(own.shape, generator=generator) < 0.5, own, any_word)


def loss_of(one: Tensor, other: Tensor, repel: bool) -> Tensor:
    """1 − cosine of two samples of a topic; with ``repel`` the cross entropy of telling it among all topics."""
    if not repel:
        return 1 - (one * other).sum(-1).mean()
    return F.cross_entropy(one @ other.T / 0.2, torch.arange(len(one)))


def train(repel: bool, log: Path) -> list[float]:
    """Train and log; the loss of every step."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = Reader()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    watch = Watch(model, every=EVERY, gram="raw", loggers=[JSONLLogger(log)])
    topics, losses = torch.arange(TOPICS), []
    for step in range(STEPS + 1):
        with watch.step(step):
            loss = loss_of(model(samples(topics, generator)), model(samples(topics, generator)), repel)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    watch.close()
    return losses


def draw(logs: dict[str, list[dict[str, float]]], losses: dict[str, list[float]]) -> Figure:
    """Mean cosine and effective rank of every site over the steps, a column a run; the loss above them."""
    figure = Figure(figsize=(9, 7.5), layout="constrained")
    grid = figure.subplots(3, len(logs), sharex=True, sharey="row")
    sites = ["embedding", *(f"block.{i}" for i in range(BLOCKS))]
    shades = ["#9ECAE1", "#6BAED6", "#4292C6", "#2171B5", "#D55E00"]  # the last block stands out
    rows = (("mean_cosine", "mean cosine"), ("effective_rank", f"effective rank (of {DIM})"))
    for column, (name, lines) in enumerate(logs.items()):
        steps = [line["step"] for line in lines]
        grid[0, column].plot(losses[name], color="#666666")
        grid[0, column].set_title(name, loc="left", fontweight="bold")
        for row, (metric, _) in enumerate(rows, start=1):
            for site, shade in zip(sites, shades, strict=True):
                values = [line[f"{metric}/{site}"] for line in lines]
                grid[row, column].plot(steps, values, color=shade, marker=".", label=site)
        grid[-1, column].set_xlabel("training step")
    for row, label in enumerate(("loss", *(label for _, label in rows))):
        grid[row, 0].set_ylabel(label)
    grid[1, -1].legend(frameon=False, fontsize=8)
    for axes in grid.flat:
        axes.grid(color="#E5E5E5", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Both runs, their logs, the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("collapse-out"), help="folder of the logs and the picture")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    logs, losses = {}, {}
    for name, repel in RUNS.items():
        log = out / ("apart.jsonl" if repel else "collapse.jsonl")
        log.unlink(missing_ok=True)
        losses[name] = train(repel, log)
        logs[name] = [json.loads(line) for line in log.read_text().splitlines()]
        last = f"block.{BLOCKS - 1}"
        print(f"{name}: loss {losses[name][0]:.3f} -> {losses[name][-1]:.3f}")
        for line in logs[name][:: len(logs[name]) // 4]:
            print(
                f"  step {line['step']:3}  {last}: mean cosine {line[f'mean_cosine/{last}']:.3f}, "
                f"effective rank {line[f'effective_rank/{last}']:.1f}"
            )
    draw(logs, losses).savefig(out / "training-collapse.png", dpi=110)
    print(f"wrote {out / 'training-collapse.png'}")


if __name__ == "__main__":
    main()
