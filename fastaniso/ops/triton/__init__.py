"""The ops as Triton kernels, for CUDA and ROCm."""

from fastaniso.ops.triton.gram import gram
from fastaniso.ops.triton.group_moments import group_moments
from fastaniso.ops.triton.moments import moments

__all__ = ["gram", "group_moments", "moments"]
