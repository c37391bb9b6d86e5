"""What was done on what, and the table of what training changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastaniso.paper.experiment import Measured, Table
from fastaniso.paper.training.judging import opposite_share
from fastaniso.paper.training.series import Curve, Run, by_model, heads, of_site, over_blocks, over_heads


def setting(measured: Measured) -> str:
    """What was measured, on which models and text."""
    files = ", ".join(measured["text"]["files"])
    return _of_checkpoints(measured, files) if measured["source"] == "checkpoints" else _of_trainings(measured, files)


def _of_trainings(measured: Measured, files: str) -> str:
    budget, models = measured["budget"], measured["models"]
    seeds = len({run["seed"] for run in measured["runs"]})
    said = []
    for name, model in models.items():
        steps = next(run["steps"][-1] for run in measured["runs"] if run["model"] == name)
        epochs = steps * budget["batch"] * budget["length"] / model["tokens"]
        said.append(f"{name}: built as {model['family']}, {epochs:.2g} times over the text")
    first = next(iter(models.values()))
    heads_each = f"{budget['heads']} heads of {budget['width'] // budget['heads']} numbers"
    return (
        f"Small models, trained for this page from {seeds} seeds on {files} ({measured['text']['bytes']:,} bytes, "
        f"{first['tokens']:,} tokens of a byte-level BPE with {first['vocabulary']} entries; the last tenth of the "
        f"text is held out): {'; '.join(said)}. {budget['layers']} layers of {budget['width']} numbers, {heads_each}; "
        "the output head is not tied to the embedding. What is said here holds for such models; the paper measures "
        "checkpoints of MultiBERT, which is larger and has read far more. Measured with fastaniso.probe and "
        f"probe_attention at steps 0, 1, 2, 4, … on {first['probed_tokens']:,} held-out tokens, in evaluation; states "
        "are what a block gives, in GPT-2 before its final norm. BERT adds one token-type row to every token, which by "
        "itself gives its untrained states a mean cosine of about 1/3."
    )


def _of_checkpoints(measured: Measured, files: str) -> str:
    words = measured["probe"]["words"]
    said = [
        f"{name}: {model['checkpoints']} checkpoints on {model['sequences']} runs of {words} words, at most "
        f"{model['longest']} tokens each, {model['probed_tokens']:,} in all"
        for name, model in measured["models"].items()
    ]
    return (
        f"Checkpoints of trainings, measured on {files} ({measured['text']['bytes']:,} bytes). {'; '.join(said)}. "
        "Special tokens and padding are not measured. One training each: nothing is known of other seeds."
    )


QUANTITIES: dict[str, Callable[[Run], Curve | list[float]]] = {
    "mean cosine, last block": lambda run: of_site(run, "mean_cosine", -1),
    "mean cosine, mean of blocks": lambda run: over_blocks(run, "mean_cosine"),
    "‖x̄‖, last block": lambda run: of_site(run, "drift", -1),
    "‖x̄‖ / E‖x‖, last block": lambda run: of_site(run, "drift_relative", -1),
    "‖Q̄‖, mean of heads": lambda run: over_heads(run, "query_norm"),
    "‖K̄‖, mean of heads": lambda run: over_heads(run, "key_norm"),
    "|cos(Q̄, K̄)|, mean of heads": lambda run: over_heads(run, "cosine", absolute=True),
    "cos(Q̄, K̄), mean of heads": lambda run: over_heads(run, "cosine"),
    "|Q̄·K̄|/√d, mean of heads": lambda run: over_heads(run, "score", absolute=True),
    "entropy / log(keys), mean of heads": lambda run: over_heads(run, "entropy"),
    "E⟨Q, v₁⟩, mean of heads": lambda run: over_heads(run, "query_on_first"),
    "E⟨K, v₁⟩, mean of heads": lambda run: over_heads(run, "key_on_first"),
}


def tables(measured: Measured) -> Sequence[Table]:
    """What training changed, and the heads one by one at its end."""
    return [_changes(measured), _heads(measured)]


def _changes(measured: Measured) -> Table:
    rows: list[tuple[str | float | int | None, ...]] = []
    for model, runs in by_model(measured).items():
        for name, curve in _curves(runs[0]).items():
            curves = [curve(run) for run in runs]
            first, last = (_known([c[end] for c in curves]) for end in (0, -1))
            rows.append((model, name, _mean(first), _mean(last), min(last, default=None), max(last, default=None)))
    return Table(
        "At the first and the last step: means over seeds, and the least and the largest of the seeds at the end",
        ("model", "quantity", "first", "last", "least", "largest"),
        tuple(rows),
    )


def _curves(run: Run) -> dict[str, Callable[[Run], Curve | list[float]]]:
    if run["loss"] is None:
        return QUANTITIES
    return {
        "held-out loss (nats a token)": lambda run: run["loss"]["held_out"],
        "loss of token frequencies": lambda run: [run["loss"]["baseline"]],
        **QUANTITIES,
    }


def _heads(measured: Measured) -> Table:
    rows: list[tuple[str | float | int | None, ...]] = []
    for model, runs in by_model(measured).items():
        cosines = [heads(run, "cosine", -1) for run in runs]
        shares = _known([opposite_share(run) for run in runs])
        live = [run["live"] for run in runs if run["live"]]
        last = [max(seen, key=int) for seen in live]
        logged = [list(seen[step].values())[-1] for seen, step in zip(live, last, strict=True)]
        rows.append(
            (
                model,
                len(runs),
                _mean([sum(c > 0 for c in values) / len(values) for values in cosines]),
                min(map(min, cosines)),
                max(map(max, cosines)),
                _mean(shares),
                f"{_mean(logged):.3f} (step {last[0]})" if logged else None,
            )
        )
    return Table(
        "Heads at the last step, and what the callback logged last in training (mean cosine of the last block over "
        "the training batch itself)",
        ("model", "seeds", "share cos > 0", "least cos", "largest cos", "share E⟨K, v₁⟩ < 0", "logged in training"),
        tuple(rows),
    )


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
