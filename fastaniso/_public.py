"""The public names that need nothing but torch and NumPy, all in one place: ``fastaniso`` takes them from here."""

from fastaniso.accumulator import Accumulator
from fastaniso.functional.attention import attention
from fastaniso.functional.describing import describe, describe_state
from fastaniso.functional.grouped import group_pairs
from fastaniso.functional.intervals import mean_cosine_interval, subsample_curve
from fastaniso.functional.lidar import lidar
from fastaniso.functional.linear import (
    backend_for,
    cosine_std,
    dimension_contributions,
    drift,
    group_cosine,
    mean_cosine,
    norms,
    outlier_dimensions,
)
from fastaniso.functional.neighborhood import hubness, levina_bickel, nearest_neighbors, two_nn
from fastaniso.functional.pairwise import cosine_extrema, cosine_histogram, cosine_quantiles, pairs, uniformity
from fastaniso.functional.passes import (
    alignment,
    centered_mean_cosine,
    cosine_to_mean,
    partition_isotropy,
    row_mean_cosines,
)
from fastaniso.functional.rank_collapse import rank_collapse
from fastaniso.functional.spectral import (
    alpha_req,
    condition_number,
    effective_rank,
    isoscore,
    isoscore_star,
    mev,
    nesum,
    participation_ratio,
    rankme,
    self_clustering,
    spectral_entropy,
    stable_rank,
    top_eigenvalue_share,
    variance_explained,
)
from fastaniso.functional.word_mev import word_mev
from fastaniso.functional.words import inter_cosine, intra_sentence_similarity, self_similarity, sequence_cosine
from fastaniso.planning.plan import Plan, plan
from fastaniso.result import (
    AttentionStatistics,
    CosineToMean,
    Description,
    DimensionContributions,
    Drift,
    GroupCosine,
    GroupPairs,
    Histogram,
    Hubness,
    IntraSentenceSimilarity,
    LevinaBickel,
    MeanCosineInterval,
    Norms,
    OutlierDimensions,
    PairStatistics,
    RankCollapse,
    SelfSimilarity,
    SequenceCosine,
    SubsampleCurve,
    TwoNN,
    WordMEV,
)
from fastaniso.state import (
    Attention,
    CorruptStateError,
    Gram,
    GroupMoments,
    HeadMoments,
    Moments,
    Neighbors,
    Pairs,
    StateMismatchError,
    bytes_to_state,
    load_state,
    save_state,
    state_to_bytes,
)
from fastaniso.statistics.catalogue import Catalogue, metrics
from fastaniso.statistics.host import InvalidRowsError
from fastaniso.statistics.metric import Metric
