"""What the paper's section claims of an untrained block, in our words, and what we ask beside it."""

from __future__ import annotations

from fastaniso.paper.claims import Claim

OURS = "beside §4, ours"
CLAIMS = (
    Claim(
        "rises",
        "§4",
        "An untrained BERT block makes embeddings that share a bias more alike: the mean cosine of its output is above "
        "that of its input at every norm of the bias.",
    ),
    Claim(
        "attention",
        OURS,
        "It is attention that does so: without it the same block gives a lower mean cosine at every norm of the bias.",
    ),
    Claim("control", OURS, "Without attention the block makes them more alike at no norm of the bias."),
    Claim(
        "fixed-point",
        "§4",
        "At some norm of the bias, of the order of √d, the block leaves the norm of its rows as it was.",
    ),
    Claim("trained-norms", "§4", "That norm, √d, is of the order of the norms inside trained models."),
    Claim("spread", "§4", "A common bias widens the scores before the softmax, as the square of its norm."),
    Claim(
        "softmax",
        "§4",
        "With the bias the largest softmax value of a row grows and the least falls, until attention is sharp.",
    ),
    Claim("sharp-at-fixed-point", OURS, "A bias that leaves the norm as it was is enough for sharp attention."),
    Claim(
        "queries-keys",
        "§4",
        "Queries and keys take the bias over: their mean is the projection of the rows' mean, and they grow longer and "
        "more alike with it.",
    ),
    Claim("pre-norm", OURS, "Blocks that normalise first, as GPT-2's and Llama's, do all of this too."),
)
