"""Random models of sounds and images, small enough to run at once, what makes their inputs, and data for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from numpy.typing import NDArray
from torch import nn

RATE = 16_000

_BLOCKS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
_WAVES = {
    **_BLOCKS,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 8),
    "conv_stride": (5, 4),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 12,
}
_STABLE = {**_WAVES, "do_stable_layer_norm": True, "feat_extract_norm": "layer"}
_PATCHES = {**_BLOCKS, "image_size": 32, "patch_size": 8}
# The numbers of a transformer that hears, and of one that speaks.
_WHISPER = {
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_mel_bins": 16,
    "max_source_positions": 50,  # one second: 100 frames of 10 ms, every second one
    "max_target_positions": 24,
    "vocab_size": tiny.VOCABULARY,
    "decoder_start_token_id": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "begin_suppress_tokens": None,
}

SOUNDS: dict[str, Callable[[], Any]] = {
    "wav2vec2": lambda: transformers.Wav2Vec2Config(**_WAVES),
    "wav2vec2_stable": lambda: transformers.Wav2Vec2Config(**_STABLE),
    "hubert": lambda: transformers.HubertConfig(**_WAVES),
    "hubert_stable": lambda: transformers.HubertConfig(**_STABLE),
    "wavlm": lambda: transformers.WavLMConfig(**_WAVES),
    "whisper": lambda: transformers.WhisperConfig(**_WHISPER),
}
IMAGES: dict[str, Callable[[], Any]] = {
    "vit": lambda: transformers.ViTConfig(**_PATCHES),
    "deit": lambda: transformers.DeiTConfig(**_PATCHES),
    "beit": lambda: transformers.BeitConfig(**_PATCHES),
    "dinov2": lambda: transformers.Dinov2Config(**_PATCHES, mlp_ratio=2),
    "dinov2_registers": lambda: transformers.Dinov2WithRegistersConfig(**_PATCHES, mlp_ratio=2, num_register_tokens=4),
    "dinov3": lambda: transformers.DINOv3ViTConfig(**_PATCHES, num_register_tokens=4),
}
PREFIX = {
    "vit": {"class token": 1},
    "deit": {"class token": 1, "distillation token": 1},
    "beit": {"class token": 1},
    "dinov2": {"class token": 1},
    "dinov2_registers": {"class token": 1, "register tokens": 4},
    "dinov3": {"class token": 1, "register tokens": 4},
}
"""Tokens before the patches, by what they are."""

CONVOLUTIONAL: dict[str, Callable[[], Any]] = {
    "resnet": lambda: transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16], depths=[1, 2, 1]),
    "convnext": lambda: transformers.ConvNextConfig(
        num_stages=3, hidden_sizes=[8, 12, 16], depths=[1, 2, 1], patch_size=4
    ),
}
CONFIGS = SOUNDS | IMAGES | CONVOLUTIONAL


def model(family: str) -> nn.Module:
    """The same random model of a family each time."""
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(CONFIGS[family]()).eval()


def extractor(family: str) -> Any:
    """What makes samples ready; models whose first norm is over time have none that gives an attention mask."""
    if family == "whisper":
        return transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=1, sampling_rate=RATE)
    return transformers.Wav2Vec2FeatureExtractor(return_attention_mask="stable" in family, sampling_rate=RATE)


def image_processor() -> Any:
    """What resizes to 32 × 32 and normalises."""
    return transformers.ViTImageProcessor(size={"height": 32, "width": 32})


def saved(family: str, folder: Path) -> Path:
    """A model folder such as a hub gives, with what makes its inputs."""
    model(family).save_pretrained(folder)
    (extractor(family) if family in SOUNDS else image_processor()).save_pretrained(folder)
    if family == "whisper":
        tiny.tokenizer().save_pretrained(folder)
    return folder


def hum(seconds: float, *, rate: int = RATE, seed: int = 0) -> NDArray[np.float32]:
    """A voice-like sound: a gliding tone with overtones, in noise."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * (120 * time + 40 * np.sin(3 * time))
    tones = sum(np.sin(k * phase) / k for k in range(1, 6))
    return (0.2 * tones + 0.02 * generator.standard_normal(len(time))).astype(np.float32)


def write_sounds(folder: Path) -> Path:
    """wav and flac files of several lengths and rates, one of them with two channels."""
    soundfile = pytest.importorskip("soundfile", reason="sounds need the package soundfile")
    pytest.importorskip("soxr", reason="sounds of another rate need the package soxr")
    folder.mkdir()
    soundfile.write(folder / "one.wav", hum(0.4), RATE)
    soundfile.write(folder / "two.flac", hum(0.25, seed=1), RATE)
    soundfile.write(folder / "three.wav", hum(0.5, rate=8000, seed=2), 8000)
    soundfile.write(folder / "stereo.wav", np.stack((hum(0.3, seed=3), hum(0.3, seed=4)), 1), RATE)
    return folder


def photos() -> list[Any]:
    """Two photographs that scikit-learn ships."""
    images = pytest.importorskip("sklearn.datasets", reason="the photographs are scikit-learn's").load_sample_images()
    pillow = pytest.importorskip("PIL.Image", reason="images need the package pillow")
    return [pillow.fromarray(image) for image in images.images]


def write_photos(folder: Path) -> Path:
    """The photographs whole and in quarters: ten files of three sizes."""
    folder.mkdir()
    for number, photo in enumerate(photos()):
        photo.save(folder / f"photo-{number}.png")
        width, height = photo.size
        for quarter in range(4):
            left, top = (quarter % 2) * width // 2, (quarter // 2) * height // 2
            photo.crop((left, top, left + width // 2, top + height // 2)).save(folder / f"part-{number}-{quarter}.jpg")
    return folder
