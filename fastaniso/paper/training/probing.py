"""One model measured on a probe set: hidden states, queries, keys and attention, in one pass over the sequences."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

import fastaniso
from fastaniso.paper.training.vectors import Vectors
from fastaniso.paper.training.words import Sequences

Point = dict[str, Any]
"""The measurements of one step: numbers by site, or by layer and head."""

AT_ONCE = 16
"""Sequences in one pass."""


def measure_step(network: nn.Module, sequences: Sequences, points: int) -> tuple[Point, Vectors]:
    """Measure ``network``, in evaluation, at the positions that ``sequences`` keep."""
    training = network.training
    network.eval()
    device = next(network.parameters()).device
    vectors = Vectors(sequences.keep, points)
    hidden = fastaniso.probe(network)
    try:
        with torch.no_grad(), hidden, fastaniso.probe_attention(network, each=vectors) as heads:
            for start in range(0, len(sequences), AT_ONCE):
                rows = slice(start, start + AT_ONCE)
                keep = sequences.keep[rows].to(device)
                hidden.mask(keep)
                heads.mask(keep)
                vectors.begin(rows)
                network(**_inputs(network, sequences, rows, device))
    finally:
        network.train(training)
    states, attention = hidden.results(), heads.results()
    if attention.refused:
        site, reason = next(iter(attention.refused.items()))
        raise ValueError(f"{site}: {reason}")
    own = [(number, site) for number, site in enumerate(attention.sites) if site.kind == "self"]
    on_first = [vectors.on_first_direction(number) for number, _ in own]
    by_site = [states[site] for site in states]
    return {
        "sites": list(states),
        "mean_cosine": [described.mean_cosine for described in by_site],
        "drift": [described.drift.norm_of_mean for described in by_site],
        "drift_relative": [described.drift.relative for described in by_site],
        "layers": [site.site for _, site in own],
        "calls": [number for number, _ in own],
        "dims": [site.attention.dim for _, site in own],
        "causal": all(site.attention.causal for _, site in own),
        "query_norm": [list(site.attended.queries.norm_of_mean) for _, site in own],
        "key_norm": [_by_query_head(site, site.attended.keys.norm_of_mean) for _, site in own],
        "cosine": [list(site.attended.cosine_of_means) for _, site in own],
        "score": [list(site.attended.score_of_means) for _, site in own],
        "entropy": [[_known(value) for value in site.attention.normalized_entropy] for _, site in own],
        "query_on_first": [on_queries for on_queries, _ in on_first],
        "key_on_first": [on_keys for _, on_keys in on_first],
    }, vectors


def _inputs(network: nn.Module, sequences: Sequences, rows: slice, device: torch.device) -> dict[str, Tensor]:
    ids, attended = sequences.ids[rows].to(device), sequences.attention_mask[rows].to(device)
    inputs = {"input_ids": ids, "attention_mask": attended}
    if getattr(getattr(network, "config", None), "is_encoder_decoder", False):
        inputs |= {"decoder_input_ids": ids, "decoder_attention_mask": attended}
    return inputs


def _by_query_head(site: Any, values: tuple[float, ...]) -> list[float]:
    """A value of each head of keys, for each head of queries that reads it."""
    return [values[head * site.key_heads // site.heads] for head in range(site.heads)]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
