"""What the paper claims of the drift, and claims of ours about the untrained models beside it."""

from __future__ import annotations

from fastaniso.paper.claims import Claim

CLAIMS = (
    Claim(
        "not-always",
        "§3.3, Figure 5",
        "Drift does not always explain anisotropy: in some trained models the two do not rise together.",
    ),
    Claim(
        "often",
        "§3.3, Figure 5",
        "In most trained Transformers they do rise together.",
    ),
    Claim(
        "convolutional",
        "§3.3, Figure 5",
        "In most trained convolutional networks they do not.",
    ),
    Claim(
        "relative",
        "beside the paper",
        "The scale of the states hides the relation: over the layers of trained models the drift as a share of the "
        "mean norm goes with the mean cosine more closely than the drift itself.",
    ),
    Claim(
        "untrained", "control", "In untrained Transformers drift and mean cosine rise together, in every one at hand."
    ),
)
