"""What the paper claims of layers, and claims of ours about the untrained models beside them."""

from __future__ import annotations

from fastaniso.paper.claims import Claim

CLAIMS = (
    Claim(
        "subword",
        "§3, Figure 1",
        "Every trained model of subwords has a layer whose states are close to each other in angle.",
    ),
    Claim(
        "character",
        "§3, Figure 2",
        "So has every trained model of characters or bytes, which have no long tail of rare tokens.",
    ),
    Claim("more", "§3, Figures 1 and 2", "Models of characters or bytes are more anisotropic than models of subwords."),
    Claim(
        "decoder",
        "§3, Figures 1 and 2",
        "In trained encoder–decoders of text the decoder is more anisotropic than the encoder.",
    ),
    Claim("speech", "§3, Figure 3", "Trained models of speech are anisotropic in every layer."),
    Claim(
        "vision",
        "§3, Figure 3",
        "Trained vision Transformers differ: some are anisotropic in some layer, and some in none.",
    ),
    Claim(
        "convolutional",
        "§3, Figure 4",
        "Most trained convolutional networks are nearly isotropic in most of their layers.",
    ),
    Claim(
        "other", "beside the paper", "Trained models of other sequences (molecules, proteins) have such a layer, too."
    ),
    Claim("untrained", "control", "Untrained Transformers of every family at hand have such a layer already."),
    Claim("deeper", "control", "Every stack of an untrained Transformer of text ends more anisotropic than it begins."),
    Claim(
        "training",
        "control",
        "A trained model reaches more anisotropy than an untrained one of the same configuration on the same data.",
    ),
)
