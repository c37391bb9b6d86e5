"""The figures of the paper's third section: the models of each, and what they read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A figure of the paper, or models beside it: heading, which figure ("": none), and the data its models read."""

    title: str
    where: str
    data: str


FIGURES = {
    "subword": Figure("Subwords", "Figure 1", "text"),
    "character": Figure("Characters and bytes", "Figure 2", "text"),
    "speech": Figure("Speech", "Figure 3", "sounds"),
    "vision": Figure("Vision", "Figure 3", "images"),
    "convolutional": Figure("Convolutional networks", "Figure 4", "images"),
    "other": Figure("Other sequences", "", "text"),
}

PAPER = {
    "bert-base-uncased": "subword",
    "roberta-base": "subword",
    "gpt2": "subword",
    "t5-base": "subword",
    "google/canine-s": "character",
    "google/canine-c": "character",
    "google/byt5-base": "character",
    "facebook/wav2vec2-base": "speech",
    "facebook/hubert-base-ls960": "speech",
    "openai/whisper-base": "speech",
    "google/vit-base-patch16-224": "vision",
    "microsoft/beit-base-patch16-224": "vision",
    "facebook/deit-base-distilled-patch16-224": "vision",
    "nvidia/mit-b0": "vision",
    "microsoft/resnet-50": "convolutional",
    "google/efficientnet-b0": "convolutional",
    "facebook/convnext-tiny-224": "convolutional",
    "microsoft/cvt-13": "convolutional",
    "Visual-Attention-Network/van-base": "convolutional",
}
"""Hub ids of the paper's families, by figure; where the paper leaves the checkpoint open, the usual one."""

NOT_IN_TRANSFORMERS = {
    "CharacterBERT": "transformers has no such architecture, and no code of others is run",
    "MANTa-LM": "transformers has no such architecture, and no code of others is run",
}
"""Models of Figure 2 that cannot be loaded, whatever is at hand."""
