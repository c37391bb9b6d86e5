"""The ops as torch sees them: schemas, fakes, and hooks inside a compiled model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastaniso
from fastaniso.ops import library  # noqa: F401

HIDDEN = torch.randn(3, 50, 16)
MASK = torch.rand(3, 50) > 0.3
GROUPS = torch.arange(150).view(3, 50) % 4
CALLS = {
    "moments": [(HIDDEN, None, 0, "cpu"), (HIDDEN.bfloat16(), MASK, 7, "cpu"), (HIDDEN[:, 1:], None, 0, "reference")],
    "group_moments": [(HIDDEN, MASK, GROUPS, 4, 0, "cpu"), (HIDDEN.half(), None, GROUPS, 4, 0, "cpu")],
    "gram": [(HIDDEN, MASK, True, True, 0, "cpu"), (HIDDEN.double(), None, False, True, 0, "cpu")],
}


@pytest.mark.parametrize(("op", "arguments"), [(op, a) for op, calls in CALLS.items() for a in calls])
def test_opcheck(op: str, arguments: tuple[object, ...]) -> None:
    torch.library.opcheck(getattr(torch.ops.fastaniso, op).default, arguments)


def test_a_hook_inside_a_compiled_model_keeps_working() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16))
    eager, compiled = fastaniso.Accumulator(gram=True), fastaniso.Accumulator(gram=True)
    batches = [torch.randn(20, 16) for _ in range(3)]

    handle = model[0].register_forward_hook(lambda module, args, output: eager.update(output) and None)
    with torch.no_grad():
        for batch in batches:
            model(batch)
    handle.remove()

    model[0].register_forward_hook(lambda module, args, output: compiled.update(output) and None)
    fast = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        for batch in batches:
            fast(batch)

    assert compiled.result().n == 60
    assert compiled.result().mean_cosine == pytest.approx(eager.result().mean_cosine, rel=1e-6)
