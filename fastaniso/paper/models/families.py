"""An untrained model of every family of the paper's Figures 1 to 4: the control beside trained ones.

Weights are those that transformers initialises a configuration with, after ``torch.manual_seed``. Sizes are
``Scale``'s: at full size the paper's (base) models', else the same shape with fewer and narrower layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastaniso.paper.options import Size


@dataclass(frozen=True)
class Scale:
    """Sizes of random models.

    ``width`` is the share of the paper's channels in convolutions, ``stage`` the most blocks of a stage, ``vocabulary``
    the number of subwords, ``pixels`` and ``patch`` the edges of an image and a patch, ``seconds`` what Whisper reads.
    """

    dim: int
    layers: int
    heads: int
    width: float
    stage: int
    vocabulary: int
    pixels: int
    patch: int
    seconds: int

    def channels(self, *base: int) -> list[int]:
        """Channels of stages."""
        return [max(8, int(number * self.width)) for number in base]

    def depths(self, *base: int) -> list[int]:
        """Blocks of stages, at most ``stage`` each."""
        return [min(number, self.stage) for number in base]


SCALES = {
    Size.smoke: Scale(32, 3, 4, 1 / 8, 3, 300, 64, 16, 2),
    Size.small: Scale(256, 12, 4, 1 / 2, 99, 2000, 128, 16, 8),
    Size.full: Scale(768, 12, 12, 1.0, 99, 8000, 224, 16, 30),
}


@dataclass(frozen=True)
class Family:
    """A family: its name, the paper's figure, what its tokens are ("" for images and sounds), and its configuration.

    ``around``: whether [CLS] begins and [SEP] ends its sequences.
    """

    title: str
    figure: str
    tokens: str
    config: Callable[[Any, Scale], Any]
    around: tuple[bool, bool] = (True, True)

    def model(self, scale: Scale, vocabulary: int, seed: int) -> Any:
        """A model with random weights, in ``.eval()``; ``vocabulary`` ids, those of its tokenizer, if it reads text."""
        import transformers

        try:
            config = self.config(transformers, scale)
        except AttributeError as error:
            raise LookupError(f"this version of transformers has no {self.title} ({error})") from error
        if vocabulary and hasattr(config, "vocab_size"):
            config.vocab_size = vocabulary
        return untrained(config, seed)


def untrained(config: Any, seed: int) -> Any:
    """A model of a configuration with random weights, in ``.eval()``.

    Its batch norms have seen no data, and with the running statistics that they begin with states vanish within some
    blocks: they norm by the statistics of each batch instead.
    """
    import torch
    import transformers

    maker: Any = transformers.AutoModel
    torch.manual_seed(seed)
    model = maker.from_config(config, trust_remote_code=False).float().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean = module.running_var = None
            module.track_running_stats = False
    return model


def _encoder(scale: Scale) -> dict[str, Any]:
    return {
        "hidden_size": scale.dim,
        "num_hidden_layers": scale.layers,
        "num_attention_heads": scale.heads,
        "intermediate_size": 4 * scale.dim,
    }


def _patches(scale: Scale) -> dict[str, Any]:
    return {**_encoder(scale), "image_size": scale.pixels, "patch_size": scale.patch}


def _waves(scale: Scale) -> dict[str, Any]:
    return {**_encoder(scale), "conv_dim": scale.channels(512) * 7}


def _t5(scale: Scale, encoder: int, decoder: int) -> dict[str, Any]:
    return {
        "d_model": scale.dim,
        "d_kv": scale.dim // scale.heads,
        "d_ff": 4 * scale.dim,
        "num_heads": scale.heads,
        "num_layers": encoder,
        "num_decoder_layers": decoder,
        "pad_token_id": 0,
    }


FAMILIES = {
    "bert": Family("BERT", "subword", "subwords", lambda t, s: t.BertConfig(**_encoder(s))),
    "roberta": Family(
        "RoBERTa",
        "subword",
        "subwords",
        lambda t, s: t.RobertaConfig(**_encoder(s), max_position_embeddings=514, type_vocab_size=1, pad_token_id=0),
    ),
    "gpt2": Family(
        "GPT-2",
        "subword",
        "subwords",
        lambda t, s: t.GPT2Config(n_embd=s.dim, n_layer=s.layers, n_head=s.heads, bos_token_id=None, eos_token_id=None),
        (False, False),
    ),
    "t5": Family("T5", "subword", "subwords", lambda t, s: t.T5Config(**_t5(s, s.layers, s.layers)), (False, True)),
    "canine": Family(
        "CANINE",
        "character",
        "characters",
        lambda t, s: t.CanineConfig(**_encoder(s), num_hash_buckets=16384 if s.dim > 64 else 256),
    ),
    "byt5": Family(
        "ByT5",
        "character",
        "bytes",
        lambda t, s: t.T5Config(
            **_t5(s, 3 * s.layers // 2, max(2, s.layers // 2)),
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        ),
    ),
    "wav2vec2": Family("wav2vec 2.0", "speech", "", lambda t, s: t.Wav2Vec2Config(**_waves(s))),
    "hubert": Family("HuBERT", "speech", "", lambda t, s: t.HubertConfig(**_waves(s))),
    "whisper": Family(
        "Whisper",
        "speech",
        "",
        lambda t, s: t.WhisperConfig(
            d_model=s.dim,
            encoder_layers=max(3, s.layers // 2),
            decoder_layers=max(3, s.layers // 2),
            encoder_attention_heads=s.heads,
            decoder_attention_heads=s.heads,
            encoder_ffn_dim=4 * s.dim,
            decoder_ffn_dim=4 * s.dim,
            max_source_positions=50 * s.seconds,
            vocab_size=384,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=1,
            decoder_start_token_id=1,
        ),
    ),
    "vit": Family("ViT", "vision", "", lambda t, s: t.ViTConfig(**_patches(s))),
    "beit": Family("BEiT", "vision", "", lambda t, s: t.BeitConfig(**_patches(s))),
    "deit": Family("DeiT", "vision", "", lambda t, s: t.DeiTConfig(**_patches(s))),
    "mit": Family(
        "MiT",
        "vision",
        "",
        lambda t, s: t.SegformerConfig(
            hidden_sizes=[int(n * max(s.width, 1 / 4)) for n in (32, 64, 160, 256)], depths=s.depths(2, 2, 2, 2)
        ),
    ),
    "resnet": Family(
        "ResNet-50",
        "convolutional",
        "",
        lambda t, s: t.ResNetConfig(
            embedding_size=s.channels(64)[0], hidden_sizes=s.channels(256, 512, 1024, 2048), depths=s.depths(3, 4, 6, 3)
        ),
    ),
    "efficientnet": Family(
        "EfficientNet",
        "convolutional",
        "",
        lambda t, s: t.EfficientNetConfig(
            width_coefficient=s.width, depth_coefficient=1.0, hidden_dim=int(1280 * s.width), image_size=s.pixels
        ),
    ),
    "convnext": Family(
        "ConvNeXt",
        "convolutional",
        "",
        lambda t, s: t.ConvNextConfig(hidden_sizes=s.channels(96, 192, 384, 768), depths=s.depths(3, 3, 9, 3)),
    ),
    "cvt": Family(
        "CvT",
        "convolutional",
        "",
        lambda t, s: t.CvtConfig(
            embed_dim=[int(n * s.width) for n in (64, 192, 384)], num_heads=[1, 3, 6], depth=s.depths(1, 2, 10)
        ),
    ),
    "van": Family(
        "VAN",
        "convolutional",
        "",
        lambda t, s: t.VanConfig(hidden_sizes=s.channels(64, 128, 320, 512), depths=s.depths(3, 3, 12, 3)),
    ),
}
