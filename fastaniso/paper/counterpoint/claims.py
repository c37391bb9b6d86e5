"""What Machina & Mercer (2024) hold against the paper, in our words."""

from __future__ import annotations

from fastaniso.paper.claims import Claim

WHERE = "Machina & Mercer 2024"

CLAIMS = (
    Claim(
        "table",
        WHERE,
        "Anisotropy is not inherent: there are trained models whose embedding table is nearly isotropic.",
    ),
    Claim(
        "states",
        WHERE,
        "There are trained language models whose last hidden states are nearly isotropic.",
    ),
    Claim("pythia", WHERE, "Large Pythia models are nearly isotropic."),
    Claim(
        "output",
        WHERE,
        "Where a model has two tables, the output embeddings are less isotropic than the input embeddings.",
    ),
    Claim(
        "centring",
        WHERE,
        "Most of the anisotropy of an embedding table is its mean: centred, the table is nearly isotropic.",
    ),
    Claim(
        "norm",
        WHERE,
        "What is seen behind the last layer is largely the doing of the final norm, which moves the mean cosine by "
        "more than any block before it.",
    ),
    Claim("undoes", WHERE, "The final norm makes states less alike."),
    Claim("published", WHERE, "Their published I(W) of Pythia-70m comes out here, of both tables, raw and centred."),
    Claim(
        "untrained", "control", "Embedding tables of untrained models are nearly isotropic: training makes the rest."
    ),
)
