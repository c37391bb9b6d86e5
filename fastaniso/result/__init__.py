"""Frozen results: plain numbers on the host, with what they were made from. nan: undefined; None: not asked for."""

from fastaniso.result.attention import AttentionDropped, AttentionStatistics, ScoreHistogram
from fastaniso.result.base import Dropped, Result, json_ready
from fastaniso.result.description import (
    Description,
    DimensionContributions,
    Drift,
    GroupCosine,
    Norms,
    OutlierDimensions,
    TopDimensions,
)
from fastaniso.result.histogram import Axis, Histogram, Interval, Quantile, Share
from fastaniso.result.intervals import MeanCosineInterval, SubsampleCurve
from fastaniso.result.neighbors import Hubness, LevinaBickel, NearestNeighbors, TwoNN
from fastaniso.result.pairs import Extrema, Extreme, GroupPairs, Intervals, PairStatistics, Sample
from fastaniso.result.queries_keys import HeadVectors, QueriesKeys
from fastaniso.result.second_pass import CosineToMean
from fastaniso.result.words import IntraSentenceSimilarity, RankCollapse, SelfSimilarity, SequenceCosine, WordMEV

__all__ = [
    "AttentionDropped",
    "AttentionStatistics",
    "Axis",
    "CosineToMean",
    "Description",
    "DimensionContributions",
    "Drift",
    "Dropped",
    "Extrema",
    "Extreme",
    "GroupCosine",
    "GroupPairs",
    "HeadVectors",
    "Histogram",
    "Hubness",
    "Interval",
    "Intervals",
    "IntraSentenceSimilarity",
    "LevinaBickel",
    "MeanCosineInterval",
    "NearestNeighbors",
    "Norms",
    "OutlierDimensions",
    "PairStatistics",
    "Quantile",
    "QueriesKeys",
    "RankCollapse",
    "Result",
    "Sample",
    "ScoreHistogram",
    "SelfSimilarity",
    "SequenceCosine",
    "Share",
    "SubsampleCurve",
    "TopDimensions",
    "TwoNN",
    "WordMEV",
    "json_ready",
]
