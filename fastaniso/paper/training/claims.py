"""What the paper says of queries and keys in training, in our words, and what is measured for each sentence."""

from __future__ import annotations

from fastaniso.paper.claims import Claim

CLAIMS = (
    Claim(
        "means-grow",
        "§5",
        "In training the mean query and the mean key of the heads move away from the origin: their norms grow.",
    ),
    Claim(
        "means-align",
        "§5",
        "They move along one line: |cos(Q̄, K̄)| grows, beyond what two unrelated directions would have.",
    ),
    Claim(
        "both-signs",
        "§5",
        "In some heads the two point the same way and in others opposite ways.",
    ),
    Claim(
        "product-grows",
        "§5",
        "So what all pairs of tokens share of their score, Q̄·K̄/√d, grows in absolute value.",
    ),
    Claim(
        "attention-sharpens",
        "§5",
        "Meanwhile attention becomes sharper: the entropy of its rows falls.",
    ),
    Claim(
        "anisotropy-rises",
        "§5, of §3's measure",
        "Meanwhile hidden states become more anisotropic: their mean cosine rises over training.",
    ),
    Claim(
        "one-filter",
        "Q-Filters, arXiv 2503.02812",
        "In most heads of a trained causal language model keys lie, along the main direction of the queries, on the "
        "other side of the origin than the queries.",
    ),
)
