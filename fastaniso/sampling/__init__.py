"""A sample of the pair grid: which tiles there are, how many to draw, the op run on those drawn, and estimates."""

from fastaniso.sampling.design import Design, Grid, check_sample, design
from fastaniso.sampling.run import sample_pairs

__all__ = ["Design", "Grid", "check_sample", "design", "sample_pairs"]
