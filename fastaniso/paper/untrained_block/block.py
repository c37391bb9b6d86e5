"""One untrained block, as BERT, GPT-2 and Llama begin: a few lines of PyTorch, whatever transformers is installed.

Own code, and not the modules of transformers, so that one pass gives the queries and keys as they enter the scores and
the output with and without attention; the tests hold it to transformers' modules with the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

STD = 0.02
"""Standard deviation of every weight and embedding at the start, in all three families."""
GPT2_LAYERS = 12
"""GPT-2 begins what is added to the residual stream with weights smaller by √(2 · layers)."""
ROTARY_BASE = 10_000.0


@dataclass(frozen=True)
class Kind:
    """What tells the families apart. ``llama``: RMSNorm, rotary positions and a gated feed-forward of 8/3 the width."""

    title: str
    norm_first: bool
    causal: bool
    llama: bool
    epsilon: float
    residual_std: float = STD


KINDS = {
    "bert": Kind("BERT", norm_first=False, causal=False, llama=False, epsilon=1e-12),
    "gpt2": Kind(
        "GPT-2", norm_first=True, causal=True, llama=False, epsilon=1e-5, residual_std=STD / (2 * GPT2_LAYERS) ** 0.5
    ),
    "llama": Kind("Llama", norm_first=True, causal=True, llama=True, epsilon=1e-6),
}


class Passed(NamedTuple):
    """What one pass gives. Queries and keys ``(B, H, T, d/H)`` are those of the scores, after rotary positions."""

    queries: Tensor
    keys: Tensor
    output: Tensor  # (B, T, d)
    without_attention: Tensor  # (B, T, d): attention's part of the residual stream is zero, all else the same


@dataclass(frozen=True)
class Block:
    """Weights of one block. Biases begin at zero and gains at one in all families: neither is kept."""

    kind: Kind
    heads: int
    query: Tensor  # (d, d), as all weights (out, in)
    key: Tensor
    value: Tensor
    attention_out: Tensor
    feed_in: Tensor  # (f, d)
    feed_gate: Tensor | None  # (f, d), Llama's
    feed_out: Tensor  # (d, f)

    def __call__(self, rows: Tensor) -> Passed:
        """``rows (B, T, d)`` through the block, with and without attention."""
        given = self._norm(rows) if self.kind.norm_first else rows
        queries, keys, values = (self._heads(given @ weight.T) for weight in (self.query, self.key, self.value))
        if self.kind.llama:
            queries, keys = rotated(queries), rotated(keys)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=self.kind.causal)
        attended = mixed.transpose(1, 2).flatten(2) @ self.attention_out.T
        return Passed(queries, keys, self._after_attention(rows + attended), self._after_attention(rows))

    def _after_attention(self, stream: Tensor) -> Tensor:
        if self.kind.norm_first:
            return stream + self._feed_forward(self._norm(stream))
        stream = self._norm(stream)
        return self._norm(stream + self._feed_forward(stream))

    def _feed_forward(self, stream: Tensor) -> Tensor:
        inner = stream @ self.feed_in.T
        if self.feed_gate is not None:
            return (F.silu(stream @ self.feed_gate.T) * inner) @ self.feed_out.T
        # GPT-2 has the approximation by tanh, BERT the function itself.
        return F.gelu(inner, approximate="tanh" if self.kind.norm_first else "none") @ self.feed_out.T

    def _norm(self, stream: Tensor) -> Tensor:
        width = stream.shape[-1:]
        if self.kind.llama:
            return F.rms_norm(stream, width, eps=self.kind.epsilon)
        return F.layer_norm(stream, width, eps=self.kind.epsilon)

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.reshape(*projected.shape[:-1], self.heads, -1).transpose(1, 2)


def untrained(
    kind: Kind, *, dim: int, heads: int, generator: torch.Generator, dtype: torch.dtype, device: torch.device
) -> Block:
    """A block as its family begins: every weight N(0, .02), but for what GPT-2 adds to the residual stream."""
    inner = dim * 8 // 3 if kind.llama else 4 * dim

    def weights(out: int, given: int, std: float = STD) -> Tensor:
        return (std * torch.randn(out, given, generator=generator)).to(device, dtype)

    return Block(
        kind=kind,
        heads=heads,
        query=weights(dim, dim),
        key=weights(dim, dim),
        value=weights(dim, dim),
        attention_out=weights(dim, dim, kind.residual_std),
        feed_in=weights(inner, dim),
        feed_gate=weights(inner, dim) if kind.llama else None,
        feed_out=weights(dim, inner, kind.residual_std),
    )


def rotated(heads: Tensor) -> Tensor:
    """``heads (B, H, T, k)`` turned by their positions: coordinates i and i + k/2 by the angle t · base^(−2i/k)."""
    half = heads.shape[-1] // 2
    exact = {"dtype": torch.float64, "device": heads.device}
    rates = ROTARY_BASE ** (-torch.arange(half, **exact) / half)  # type: ignore[call-overload]
    angles = torch.arange(heads.shape[-2], **exact)[:, None] * rates  # type: ignore[call-overload]
    cosine, sine = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
    first, second = heads[..., :half], heads[..., half:]
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
