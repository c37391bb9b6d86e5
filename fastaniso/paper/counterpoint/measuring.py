"""What is measured: the tables of every model, its states layer by layer, and around the final norm."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

import torch

import fastaniso
from fastaniso.paper.counterpoint.models import Subject, candidates, device_of
from fastaniso.paper.counterpoint.reading import around_final_norm, batches, loss
from fastaniso.paper.counterpoint.tables import plain, tables
from fastaniso.paper.options import Options, Size

TEXT: Mapping[Size, dict[str, int]] = {
    Size.smoke: {"length": 32, "most_tokens": 256},
    Size.small: {"length": 128, "most_tokens": 4096},
    Size.full: {"length": 512, "most_tokens": 16_384},
}
ITEMS = {Size.smoke: 2, Size.small: 8, Size.full: 256}
"""How many images and sounds are read."""

# What a model of somebody else's may end in: none of it ends the run.
_REASONS = (LookupError, OSError, ValueError, TypeError, AttributeError, ImportError, RuntimeError)


def measure(options: Options) -> dict[str, Any]:
    """A record of every model that can be measured, and under "skipped" why each other one cannot."""
    records, skipped = [], {}
    for candidate in candidates(options):
        options.say(f"measuring {candidate.name}")
        try:
            with torch.no_grad():
                record = _record(candidate.open(), options)
        except _REASONS as error:
            skipped[candidate.name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            continue
        finally:
            gc.collect()
        if record["tables"] or record["norms"]:
            records.append(record)
        else:
            skipped[candidate.name] = "it has neither the embeddings of a language model nor a final norm"
    return {"size": options.size.value, "models": records, "skipped": skipped}


def _record(subject: Subject, options: Options) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": subject.name,
        "trained": subject.trained,
        "kind": subject.kind,
        "data": subject.reads.said,
        "tables": [],
        **dict.fromkeys(("loss", "chance", "predicted")),
    }
    if subject.kind:
        thorough = options.size is not Size.smoke
        made = tables(subject.network, head_is_trained=subject.head_is_trained, thorough=thorough)
        record["tables"] = list(made)
    return {**record, **(_of_text(subject, options) if subject.is_text else _of_others(subject, options))}


def _of_text(subject: Subject, options: Options) -> dict[str, Any]:
    network, tokenizer = subject.network, subject.tokenizer
    limits = TEXT[options.size]
    length = min(limits["length"], getattr(network.config, "max_position_embeddings", None) or limits["length"])
    read = batches(
        tokenizer,
        subject.reads.data,
        length=length,
        most_tokens=limits["most_tokens"],
        device=device_of(options),
    )
    given = [{"input_ids": b.ids, "attention_mask": b.attention_mask, "mask": b.keep} for b in read]
    found = _scanned(fastaniso.scan(network, given, gram=False, invalid="omit"))
    kept, runs = sum(int(b.keep.sum()) for b in read), sum(len(b.ids) for b in read)
    found["read"] = f"{kept:,} tokens of {runs:,} sequences"
    if subject.head_is_trained and subject.trained:
        mask_token = tokenizer.mask_token_id
        if mask_token is None:
            mask_token = tokenizer.get_vocab().get("[MASK]")
        found |= loss(network, subject.kind, read, mask_token)
    states = around_final_norm(network, read)
    if states is not None and found["norms"]:
        for name, rows in zip(("before", "after"), states, strict=True):
            found["norms"][0][f"centred_{name}"] = plain(fastaniso.centered_mean_cosine(rows, invalid="omit"))
            found["norms"][0][f"isotropy_{name}"] = plain(fastaniso.partition_isotropy(rows, unit=True, invalid="omit"))
    return found


def _of_others(subject: Subject, options: Options) -> dict[str, Any]:
    """Of models that read images or sounds, or have two stacks."""
    text = {"max_tokens": TEXT[options.size]["most_tokens"], "max_length": TEXT[options.size]["length"]}
    limits = text if subject.data == "text" else {"max_items": ITEMS[options.size]}
    return _scanned(fastaniso.scan(data=subject.reads.data, gram=False, invalid="omit", **subject.given, **limits))


def _scanned(scan: Any) -> dict[str, Any]:
    """By stack: the mean cosine from layer to layer, and around the final norm."""
    stacks, norms = {}, []
    for prefix, sites in scan.stacks.items():
        by_name = {site.site.removeprefix(prefix): site.description for site in sites}
        layers = {name: plain(d.mean_cosine) for name, d in by_name.items() if not name.endswith("_final_norm")}
        stacks[prefix.rstrip(".")] = layers
        if "post_final_norm" in by_name:
            before, after = by_name["pre_final_norm"], by_name["post_final_norm"]
            norms.append(
                {
                    "stack": prefix.rstrip("."),
                    "before": plain(before.mean_cosine),
                    "after": plain(after.mean_cosine),
                    "drift_before": plain(before.drift.relative),
                    "drift_after": plain(after.drift.relative),
                }
            )
    tokens = scan.tokens
    return {
        "read": f"{tokens.kept:,} {tokens.unit} of {tokens.sequences:,} {tokens.item}",
        "stacks": stacks,
        "norms": norms,
    }
