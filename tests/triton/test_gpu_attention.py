"""``attention`` on a GPU and at its sizes; and, without one, that what it is timed against takes the same. (Not yet run
on a GPU.)
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

import attention_checks
from cases import DTYPES

from bench import gpu_attention
from fastaniso.ops import reference
from fastaniso.ops import triton as kernels

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm device on this machine")


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("name", [*attention_checks.all_checks(torch.float32, "cuda")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_everything(dtype: str, name: str) -> None:
    asked = attention_checks.all_checks(DTYPES[dtype], "cuda")
    if name in asked:  # float16 has no number as large or as small
        asked[name]()


@pytest.mark.gpu
@on_gpu
def test_offsets_beyond_int32() -> None:
    attention_checks.check_beyond_int32("cuda")


@pytest.mark.gpu
@on_gpu
def test_no_synchronisation() -> None:
    """Nothing waits for the device: an update in a training loop must not."""
    arguments = attention_checks.make(2, 4, 2, 500, 500, 64, torch.bfloat16, masked=True).arguments("cuda")
    kernels.attention(*arguments)  # compiled first: loading a kernel may synchronise
    torch.cuda.set_sync_debug_mode("error")
    try:
        kernels.attention(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("causal", [False, True])
def test_the_baseline_takes_the_same(causal: bool) -> None:
    queries, keys = torch.randn(2, 4, 90, 16), torch.randn(2, 2, 90, 16)
    got = gpu_attention.torch_blocks(queries, keys, causal, rows=32)
    want = reference.attention(
        queries, keys, None, None, 0.25, causal, None, gpu_attention.BINS, *gpu_attention.RANGE, gpu_attention.PLACES
    )
    counts, histogram, scores, rows, received, _ = want
    torch.testing.assert_close(got["rows"], rows, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got["received"], received, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got["scores"], scores, rtol=1e-4, atol=1e-3)
    assert (got["histogram"].long() - histogram).abs().sum() <= 4
    assert torch.equal(got["histogram"].sum(1).long(), counts[:, 5])
