"""The ops as Triton kernels, for CUDA and ROCm."""

from fastaniso.ops.triton.moments import moments

__all__ = ["moments"]
