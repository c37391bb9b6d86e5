"""The ops as Triton kernels, for CUDA and ROCm."""

from fastaniso.ops.triton.attention import attention
from fastaniso.ops.triton.gram import gram
from fastaniso.ops.triton.group_moments import group_moments
from fastaniso.ops.triton.moments import moments
from fastaniso.ops.triton.neighbors import neighbors
from fastaniso.ops.triton.pairs import pairs

__all__ = ["attention", "gram", "group_moments", "moments", "neighbors", "pairs"]
