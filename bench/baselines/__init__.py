"""What a user would write instead: each function takes (n, d) rows and gives the same number as fastaniso.

``MOMENTS`` give the mean cosine, ``GRAM`` the second moment, ``PAIRS`` the histogram of the cosines, ``NEIGHBORS`` the
nearest rows, ``TWO_NN`` the intrinsic dimension and ``ISOSCORE`` the IsoScore; ``DESCRIBE`` is all metrics at once
beside the passes that it needs; to ``ATTENTION`` and ``CAUSAL_ATTENTION`` the rows are queries of some heads.
tests/test_bench_baselines.py holds that they agree.
"""

from bench.baselines.attention import ATTENTION, CAUSAL_ATTENTION
from bench.baselines.catalogue import DESCRIBE, ISOSCORE, exact_isoscore
from bench.baselines.contender import Contender
from bench.baselines.gram import GRAM, error_of_matrix
from bench.baselines.moments import MOMENTS, error_of_mean, normalize_sum
from bench.baselines.neighbors import NEIGHBORS, TWO_NN, K, error_of_neighbors
from bench.baselines.pairs import BINS, PAIRS, error_of_histogram

BASELINES = {
    "moments": MOMENTS,
    "gram": GRAM,
    "pairs": PAIRS,
    "neighbors": NEIGHBORS,
    "two_nn": TWO_NN,
    "isoscore": ISOSCORE,
    "describe": DESCRIBE,
    "attention": ATTENTION,
    "attention_causal": CAUSAL_ATTENTION,
}
"""By op."""

__all__ = [
    "ATTENTION",
    "BASELINES",
    "BINS",
    "CAUSAL_ATTENTION",
    "DESCRIBE",
    "GRAM",
    "ISOSCORE",
    "MOMENTS",
    "NEIGHBORS",
    "PAIRS",
    "TWO_NN",
    "Contender",
    "K",
    "error_of_histogram",
    "error_of_matrix",
    "error_of_mean",
    "error_of_neighbors",
    "exact_isoscore",
    "normalize_sum",
]
