"""A histogram in a program's shared memory (NVIDIA): atomic additions of integers, which no order changes.

Triton has no shared array of its own, so the functions below are LLVM's own text, linked to the kernel: an array of one
int32 a slot, and functions that clear, count and read it; the caller puts a barrier after clearing and before reading.

Slot 1 + b counts bin b = ⌊c·B/2 + B/2⌋; slots 0 and B + 1 take what rounding left below −1, and 1 and more. The sum is
rounded down to a number of 2²¹ and more, whose last binary place is worth ¼: without its upper bits and its last two it
is four times the slot, the address. A minimum keeps any number within the array.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import hashlib
import struct
from functools import cache

from triton.language import core
from triton.runtime.cache import get_cache_manager

from fastaniso.ops.triton.shapes import ceiling

NAME = "fastaniso_histogram"

_TEXT = """
@slots = internal addrspace(3) global [{slots} x i32] undef, align 1024

declare float @llvm.nvvm.fma.rm.f(float, float, float)
declare i32 @llvm.umin.i32(i32, i32)

define i32 @fastaniso_clear(i32 %slot) alwaysinline {{
  %place = getelementptr [{slots} x i32], ptr addrspace(3) @slots, i32 0, i32 %slot
  store i32 0, ptr addrspace(3) %place, align 4
  ret i32 0
}}

define i32 @fastaniso_count_some(float %cosine, i32 %times) alwaysinline {{
  %shifted = call float @llvm.nvvm.fma.rm.f(float %cosine, float {half}, float {shift})
  %bits = bitcast float %shifted to i32
  %bytes = and i32 %bits, 8388604
  %bounded = call i32 @llvm.umin.i32(i32 %bytes, i32 {last})
  %place = getelementptr i8, ptr addrspace(3) @slots, i32 %bounded
  %before = atomicrmw add ptr addrspace(3) %place, i32 %times monotonic, align 4
  ret i32 0
}}

define i32 @fastaniso_count(float %cosine) alwaysinline {{
  %nothing = call i32 @fastaniso_count_some(float %cosine, i32 1)
  ret i32 0
}}

define i32 @fastaniso_read(i32 %slot) alwaysinline {{
  %place = getelementptr [{slots} x i32], ptr addrspace(3) @slots, i32 0, i32 %slot
  %number = load i32, ptr addrspace(3) %place, align 4
  ret i32 %number
}}
"""


def shared_slots(bins: int) -> int:
    """Slots of ``bins`` bins: whole KiB, because the tiles that lie behind the array must stay aligned."""
    return ceiling(bins + 2, 256) * 256


@cache
def library(bins: int) -> dict[str, str]:
    """The option ``extern_libs`` of a kernel that counts ``bins`` bins."""
    text = _TEXT.format(
        slots=shared_slots(bins),
        half=_hexadecimal(bins / 2),
        shift=_hexadecimal(2.0**21 + bins / 2 + 1),
        last=4 * (bins + 1),
    )
    # A file beside Triton's compiled kernels, named by its content.
    folder = get_cache_manager(hashlib.sha256(text.encode()).hexdigest())
    return {NAME: folder.put(text, f"{NAME}.ll", binary=False)}


def _hexadecimal(number: float) -> str:
    """A float32 as LLVM writes it: the bits of the same number in float64."""
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"


def _call(name, arguments, semantic):
    types = tuple(argument.dtype for argument in arguments)
    return core.extern_elementwise(NAME, "", arguments, {types: (name, core.int32)}, False, _semantic=semantic)


@core.extern
def clear(slot, _semantic=None):
    """Set slots to 0."""
    return _call("fastaniso_clear", [slot], _semantic)


@core.extern
def count(cosine, _semantic=None):
    """Add 1 to the slot of each cosine (float32)."""
    return _call("fastaniso_count", [cosine], _semantic)


@core.extern
def count_some(cosine, times, _semantic=None):
    """Add ``times`` (int32) to the slot of each cosine (float32)."""
    return _call("fastaniso_count_some", [cosine, times], _semantic)


@core.extern
def read(slot, _semantic=None):
    """The numbers in slots."""
    return _call("fastaniso_read", [slot], _semantic)
