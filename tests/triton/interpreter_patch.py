"""Mend Triton's interpreter where it is silently wrong, so that its results may be compared with float64.

It keeps bfloat16 numbers as uint16 patterns: ``tl.dot`` multiplies the patterns, and a conversion from float32 cuts
bits off instead of rounding. After a launch it copies each argument's storage onto itself, which would write every page
of a sparse file. And every call of a kernel's function replaces the language's functions again, which is most of the
time a small kernel takes: here the first one of a launch does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter


def decoded(pattern: NDArray[Any]) -> NDArray[np.float32]:
    """The float32 numbers that bfloat16 patterns stand for."""
    return (pattern.astype(np.uint32) << 16).view(np.float32)


def rounded(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bfloat16 patterns nearest to float32 numbers, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(numbers), 0x7FC0, nearest).astype(np.uint16)


def apply() -> None:
    """Patch the interpreter of this process."""
    builder = interpreter.InterpreterBuilder
    cast, dot = builder.cast_impl, builder.create_dot

    def cast_impl(self: Any, source: Any, target_type: Any) -> Any:
        source_type, scalar = source.dtype.scalar, target_type.scalar
        if source_type == tl.bfloat16:
            numbers = decoded(source.data)
            if scalar == tl.float32:
                return interpreter.TensorHandle(numbers, scalar)
            return cast(self, interpreter.TensorHandle(numbers, tl.float32), target_type)
        if scalar == tl.bfloat16:
            return interpreter.TensorHandle(rounded(source.data.astype(np.float32)), scalar)
        return cast(self, source, target_type)

    def create_dot(self: Any, a: Any, b: Any, d: Any, precision: Any, imprecise: Any) -> Any:
        a, b = (
            interpreter.TensorHandle(decoded(x.data), tl.float32) if x.dtype.scalar == tl.bfloat16 else x
            for x in (a, b)
        )
        return dot(self, a, b, d, precision, imprecise)

    restore = interpreter.GridExecutor._restore_args_dev

    def restore_moved(self: Any, device: Any, host: Any, kwargs: Any, kwargs_host: Any) -> None:
        def moved(there: Any, here: Any) -> bool:
            return hasattr(there, "data_ptr") and there.data_ptr() != here.data_ptr()

        pairs = [(there, here) for there, here in zip(device, host, strict=True) if moved(there, here)]
        restore(self, [p[0] for p in pairs], [p[1] for p in pairs], {}, {})

    call, patch = interpreter.GridExecutor.__call__, interpreter._patch_lang
    patched: set[frozenset[int]] = set()

    def patch_once(function: Any) -> Any:
        modules = frozenset(id(value) for value in function.__globals__.values() if value in (tl, tl.core))
        if modules in patched:
            return interpreter._LangPatchScope()
        patched.add(modules)
        return patch(function)

    def call_patched_once(self: Any, *args: Any, **kwargs: Any) -> Any:
        patched.clear()
        return call(self, *args, **kwargs)

    interpreter._patch_lang = patch_once
    interpreter.GridExecutor.__call__ = call_patched_once
    builder.cast_impl = cast_impl
    builder.create_dot = create_dot
    interpreter.GridExecutor._restore_args_dev = restore_moved
