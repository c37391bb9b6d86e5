"""The arithmetic of the text that counts cosines in shared memory, carried out in fractions."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from math import floor
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from fastaniso.ops.triton import shared_histogram


def float32_of(bits: str) -> Fraction:
    """A number as LLVM writes it, which must be one that float32 has."""
    (number,) = struct.unpack("<d", struct.pack("<Q", int(bits, 16)))
    assert torch.tensor(number, dtype=torch.float32).double() == number
    return Fraction(number)


@pytest.mark.parametrize("bins", [2, 64, 100, 999, 1024, 8191, 8192])
def test_slots(bins: int) -> None:
    text = Path(shared_histogram.library(bins)[shared_histogram.NAME]).read_text()
    half, shift = re.findall(r"fma\.rm\.f\(float %cosine, float 0x(\w+), float 0x(\w+)\)", text)[0]
    (mask,) = re.findall(r"and i32 %bits, (\d+)", text)
    (last,) = re.findall(r"umin\.i32\(i32 %bytes, i32 (\d+)\)", text)
    (slots,) = set(re.findall(r"\[(\d+) x i32\]", text))
    assert int(slots) >= bins + 2
    assert int(last) == 4 * (bins + 1)
    assert 4 * int(slots) % 1024 == 0

    generator = torch.Generator().manual_seed(bins)
    edges = torch.arange(bins + 1) * 2 / bins - 1
    cosines = torch.cat((edges, torch.rand(300, generator=generator) * 2 - 1, torch.tensor([1e-30, -1e-30, 0.0])))
    infinity = torch.full_like(cosines, torch.inf)
    for cosine in torch.cat((cosines, cosines.nextafter(infinity), cosines.nextafter(-infinity))).tolist():
        exact = Fraction(cosine) * float32_of(half) + float32_of(shift)
        assert 2**21 <= exact < 2**22
        rounded = Fraction(floor(exact * 4), 4)  # down, to what float32 has there
        (bits,) = struct.unpack("<i", struct.pack("<f", float(rounded)))
        slot = min(bits & int(mask), int(last)) // 4
        expected = floor((Fraction(cosine) + 1) * bins / 2) + 1
        assert slot == min(max(expected, 0), bins + 1), cosine
