"""Published and closed-form values of an untrained BERT block: a common bias makes rows alike, attention a little more.

Sequences of 512 tokens drawn from an embedding table N(0, .02), d = 768, a common vector of norm N added to all. The
ranges are those of four seeds of another, float64, computation over sixteen sequences; here, to be quick, over four.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fastaniso

DIM, VOCABULARY, STD = 768, 30_522, 0.02
OUTPUTS = {0.5: (0.458, 0.474, 0.441, 0.451), 1.0: (0.771, 0.781, 0.758, 0.764), 5.0: (0.988, 0.989, 0.987, 0.988)}


def bert_layer(seed: int) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        num_hidden_layers=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, vocab_size=32
    )
    torch.manual_seed(seed)
    return transformers.BertModel(config).eval().encoder.layer[0]  # type: ignore[no-any-return]


def state_of(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output  # transformers 4 gives tuples


def outputs(layer: nn.Module, rows: Tensor, *, attention: bool) -> Tensor:
    if not attention:
        # Nothing comes back from other tokens: the residual alone goes on.
        output = layer.attention.output.dense
        weights = output.weight.detach().clone()
        output.weight.data.zero_()
    with torch.no_grad():
        given = torch.cat([state_of(layer(some)) for some in rows.split(2)])
    if not attention:
        output.weight.data.copy_(weights)
    return given


@pytest.mark.parametrize("norm", OUTPUTS)
def test_untrained_block(norm: float) -> None:
    generator = torch.Generator().manual_seed(1)
    table = STD * torch.randn(VOCABULARY, DIM, generator=generator)
    direction = torch.randn(DIM, generator=generator)
    ids = torch.randint(VOCABULARY, (4, 512), generator=generator)
    rows = table[ids] + norm * direction / direction.norm()
    given = fastaniso.mean_cosine(rows)
    assert given == pytest.approx(norm**2 / (norm**2 + DIM * STD**2), abs=1e-3)  # E‖e‖² = d·.02² = .307
    layer = bert_layer(1)
    least, most, least_without, most_without = OUTPUTS[norm]
    with_attention = fastaniso.mean_cosine(outputs(layer, rows, attention=True))
    without = fastaniso.mean_cosine(outputs(layer, rows, attention=False))
    # Another seed, in float32: the ranges and 2e-3.
    assert least - 2e-3 <= with_attention <= most + 2e-3
    assert least_without - 2e-3 <= without <= most_without + 2e-3
    assert without < with_attention
    assert with_attention > given - 1e-3
