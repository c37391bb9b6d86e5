"""Transforms as scikit-learn estimators: its own checks, pipelines, searches, clones, pickles, names."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

from fastaniso import Accumulator
from fastaniso.transforms import AllButTheTop, Center, DropDimensions, Standardize, Whiten

ESTIMATORS = {
    "center": Center(),
    "standardize": Standardize(),
    "drop": DropDimensions(),
    "drop_one": DropDimensions(n_dimensions=0),
    "drop_given": DropDimensions(dimensions=[0]),
    "whiten_pca": Whiten(),
    "whiten_zca": Whiten(method="zca", shrinkage=0.1),
    "whiten_one": Whiten(n_components=1),
    "all_but_the_top": AllButTheTop(),
}
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)

# Why a check may be skipped here; the first one runs in the process below.
SKIPPED = {"check_array_api_input": "SCIPY_ARRAY_API"}
if importlib.util.find_spec("pandas") is None:
    SKIPPED["check_dataframe_column_names_consistency"] = "pandas"


def rows(n: int = 60, dim: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)) * np.arange(1, dim + 1) + 3


@every_estimator
def test_scikit_learns_own_checks(estimator: Any) -> None:
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] not in ("passed", "skipped")}
    skipped = {r["check_name"]: str(r["exception"]) for r in results if r["status"] == "skipped"}
    assert not failed
    assert all(SKIPPED.get(name, "never") in why for name, why in skipped.items()), skipped
    assert len(results) - len(skipped) >= 40


def test_scikit_learns_check_that_needs_a_process_of_its_own() -> None:
    code = (
        "from fastaniso.transforms import *\n"
        "from sklearn.utils.estimator_checks import estimator_checks_generator\n"
        "for e in (Center(), Standardize(), DropDimensions(), Whiten(), Whiten(method='zca'), AllButTheTop()):\n"
        "    for estimator, check in estimator_checks_generator(e):\n"
        "        if 'check_array_api_input' in str(check):\n"
        "            check(estimator)\n"
        "            print('passed')\n"
    )
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["passed"] * 6


def test_scikit_learn_is_imported_only_for_transforms() -> None:
    code = (
        "import sys, fastaniso\n"
        "assert 'sklearn' not in sys.modules\n"
        "sys.modules['sklearn'] = None\n"
        "try:\n    import fastaniso.transforms\n"
        "except ModuleNotFoundError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs scikit-learn 1.6 or newer: pip install 'fastaniso[transforms]'" in done.stdout


@every_estimator
def test_clones_have_the_parameters_and_no_fit(estimator: Any) -> None:
    copy = clone(clone(estimator).fit(rows()))
    assert copy.get_params() == estimator.get_params()
    with pytest.raises(NotFittedError):
        copy.transform(rows())


@pytest.mark.parametrize("attribute", ["mean_", "matrix_", "components_", "eigenvalues_"])
def test_attributes_wait_for_a_fit(attribute: str) -> None:
    assert not hasattr(Whiten(), attribute)
    with pytest.raises(NotFittedError):
        getattr(Whiten(), attribute)
    assert getattr(Whiten().fit(rows()), attribute).dtype == np.float64


@every_estimator
@pytest.mark.parametrize("by_parts", [False, True], ids=["fit", "partial_fit"])
def test_pickles_transform_alike_and_go_on(estimator: Any, by_parts: bool) -> None:
    one = clone(estimator)
    one = one.partial_fit(rows(seed=1)).partial_fit(rows(seed=2)) if by_parts else one.fit(rows(seed=1))
    other = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(other.transform(rows()), one.transform(rows()))
    np.testing.assert_array_equal(
        other.partial_fit(rows(seed=3)).transform(rows()), one.partial_fit(rows(seed=3)).transform(rows())
    )


def test_in_a_pipeline_and_a_grid_search() -> None:
    x = rows(120, 6)
    y = (x[:, 0] > x[:, 0].mean()).astype(int)
    pipeline = Pipeline([("top", AllButTheTop()), ("whiten", Whiten()), ("classify", LogisticRegression())])
    grid = {"top__n_components": [0, 2], "whiten__shrinkage": [0.0, 0.5], "whiten__method": ["pca", "zca"]}
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(x, y)
    assert search.best_score_ > 0.8
    assert len(search.cv_results_["params"]) == 8


def test_tensors_go_through_a_pipeline() -> None:
    x = torch.from_numpy(rows()).float()
    out = make_pipeline(Standardize(), Whiten(method="zca")).fit(x).transform(x)
    assert isinstance(out, torch.Tensor)
    assert out.dtype == torch.float32


def test_names_of_the_features() -> None:
    names = ["a", "b", "c", "d", "e"]
    fitted = {name: clone(estimator).fit(rows()) for name, estimator in ESTIMATORS.items()}
    for name in ("center", "standardize", "whiten_zca", "all_but_the_top"):
        assert fitted[name].get_feature_names_out(names).tolist() == names
    assert fitted["drop_given"].get_feature_names_out(names).tolist() == ["b", "c", "d", "e"]
    assert fitted["drop_given"].get_feature_names_out().tolist() == ["x1", "x2", "x3", "x4"]
    assert fitted["whiten_one"].get_feature_names_out().tolist() == ["whiten0"]
    with pytest.raises(ValueError, match="input_features"):
        fitted["whiten_pca"].get_feature_names_out(["a"])


def test_data_frames_in_and_out() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows(), columns=list("abcde"))
    for estimator in ESTIMATORS.values():
        fitted = clone(estimator).set_output(transform="pandas").fit(frame)
        out = fitted.transform(frame)
        assert list(out.columns) == list(fitted.get_feature_names_out())
        np.testing.assert_array_equal(out.to_numpy(), clone(estimator).fit_transform(rows()))
    assert list(DropDimensions(dimensions=[1]).fit(frame).feature_names_in_) == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        Center().fit(frame).transform(frame.rename(columns={"a": "z"}))


def test_a_refit_forgets_names_and_width() -> None:
    pandas = pytest.importorskip("pandas")
    center = Center().fit(pandas.DataFrame(rows(), columns=list("abcde")))
    center.fit(torch.randn(4, 3))
    assert center.n_features_in_ == 3
    assert not hasattr(center, "feature_names_in_")
    center.fit(pandas.DataFrame(rows(), columns=list("abcde")))
    center.fit_state(Accumulator().update(torch.randn(4, 2)).state)
    assert center.n_features_in_ == 2
    assert not hasattr(center, "feature_names_in_")


@every_estimator
def test_the_tags_tell_which_dtypes_are_kept(estimator: Any) -> None:
    assert get_tags(estimator).transformer_tags.preserves_dtype == ["float64", "float32", "float16"]
    assert not get_tags(estimator).input_tags.allow_nan


def test_parameters_take_effect_with_the_next_fit() -> None:
    whiten = Whiten().fit(rows())
    before = whiten.matrix_.copy()
    whiten.set_params(shrinkage=1.0, method="zca")
    np.testing.assert_array_equal(whiten.matrix_, before)
    assert not np.allclose(whiten.fit(rows()).matrix_, before)
