"""What ``import fastaniso`` gives, what it takes, and how long a small call lasts."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastaniso

PUBLIC = {
    "Accumulator",
    "Attention",
    "AttentionStatistics",
    "Catalogue",
    "CorruptStateError",
    "CosineToMean",
    "Description",
    "DimensionContributions",
    "Drift",
    "Gram",
    "GroupCosine",
    "GroupMoments",
    "GroupPairs",
    "HeadMoments",
    "Histogram",
    "Hubness",
    "IntraSentenceSimilarity",
    "InvalidRowsError",
    "LevinaBickel",
    "MeanCosineInterval",
    "Metric",
    "Moments",
    "Neighbors",
    "Norms",
    "OutlierDimensions",
    "PairStatistics",
    "Pairs",
    "Plan",
    "RankCollapse",
    "SelfSimilarity",
    "SequenceCosine",
    "StateMismatchError",
    "SubsampleCurve",
    "TwoNN",
    "WordMEV",
    "__version__",
    "alignment",
    "alpha_req",
    "attention",
    "backend_for",
    "bytes_to_state",
    "centered_mean_cosine",
    "compare",
    "condition_number",
    "cosine_extrema",
    "cosine_histogram",
    "cosine_quantiles",
    "cosine_std",
    "cosine_to_mean",
    "describe",
    "describe_state",
    "dimension_contributions",
    "distributed",
    "drift",
    "effective_rank",
    "group_cosine",
    "group_pairs",
    "hubness",
    "integrations",
    "inter_cosine",
    "intra_sentence_similarity",
    "isoscore",
    "isoscore_star",
    "levina_bickel",
    "lidar",
    "load_report",
    "load_run",
    "load_state",
    "mean_cosine",
    "mean_cosine_interval",
    "measure",
    "metrics",
    "mev",
    "nearest_neighbors",
    "nesum",
    "norms",
    "open_source",
    "outlier_dimensions",
    "pairs",
    "paper",
    "participation_ratio",
    "partition_isotropy",
    "plan",
    "probe",
    "probe_attention",
    "rank_collapse",
    "rankme",
    "report",
    "row_mean_cosines",
    "save_state",
    "scan",
    "self_clustering",
    "self_similarity",
    "sequence_cosine",
    "spectral_entropy",
    "stable_rank",
    "state_to_bytes",
    "subsample_curve",
    "tasks",
    "top_eigenvalue_share",
    "transforms",
    "two_nn",
    "uniformity",
    "variance_explained",
    "word_mev",
}


def test_exported_names() -> None:
    assert set(fastaniso.__all__) == PUBLIC
    assert sorted(fastaniso.__all__) == fastaniso.__all__
    assert set(dir(fastaniso)) == PUBLIC
    for name in PUBLIC:
        assert getattr(fastaniso, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'anisotropy'"):
        _ = fastaniso.anisotropy


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__", "measure", "scan"}))
def test_every_public_name_is_documented(name: str) -> None:
    assert len(inspect.getdoc(getattr(fastaniso, name)) or "") > 20


def test_version_is_the_packages() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert fastaniso.__version__ == project["version"]


def test_import_takes_nothing_heavy() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import fastaniso; "
        "heavy = {'triton', 'transformers', 'matplotlib', 'rich', 'typer', 'safetensors'}; "
        "heavy |= {'pyarrow', 'datasets', 'sklearn'}; "
        "print(*(heavy & {name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
