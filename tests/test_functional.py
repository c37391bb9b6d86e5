"""The public functions: what they accept, what they refuse and how they say so."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch

import fastaniso
from fastaniso import InvalidRowsError

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 0.3
SCALARS = ("mean_cosine", "cosine_std", "participation_ratio", "isoscore", "effective_rank")
RESULTS = ("drift", "norms", "dimension_contributions", "describe")

pytestmark = pytest.mark.filterwarnings("ignore:spectral scores")


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu":
        pytest.importorskip("fastaniso._cpu")
    return str(request.param)


class DLPackOnly:
    """An array of another library."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self._tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


@pytest.mark.parametrize("name", SCALARS)
def test_inputs_of_every_kind_agree(name: str, backend: str) -> None:
    function = getattr(fastaniso, name)
    expected = function(X, backend=backend)
    assert type(expected) is float
    readonly = X.numpy().copy()
    readonly.setflags(write=False)
    for hidden in (X.view(2, 4, 5, 6), X.numpy(), readonly, DLPackOnly(X), X.clone().requires_grad_()):
        assert function(hidden, backend=backend) == expected
    wide = torch.randn(40, 9)
    wide[:, 2:8] = X
    assert function(wide[:, 2:8], backend=backend) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_measured_as_they_are(dtype: torch.dtype, backend: str) -> None:
    rounded = X.to(dtype)
    assert fastaniso.mean_cosine(rounded, backend=backend) == pytest.approx(
        fastaniso.mean_cosine(rounded.double(), backend=backend), abs=5e-7
    )


@pytest.mark.parametrize("name", SCALARS + RESULTS)
def test_masks_of_leading_axes(name: str, backend: str) -> None:
    function = getattr(fastaniso, name)
    hidden, mask = X.view(4, 10, 6), (torch.arange(40) % 3 > 0).view(4, 10)
    masked, dropped = function(hidden, mask=mask, backend=backend), function(hidden[mask], backend=backend)
    if name in SCALARS:
        assert masked == pytest.approx(dropped, rel=1e-6)
    elif name in ("drift", "norms"):
        assert vars(masked) == pytest.approx(vars(dropped), rel=1e-6, abs=1e-7)
    else:
        assert masked.mean_cosine == pytest.approx(dropped.mean_cosine, abs=1e-7)
    assert fastaniso.mean_cosine(hidden, mask=mask.numpy(), backend=backend) == fastaniso.mean_cosine(
        hidden, mask=mask, backend=backend
    )


@pytest.mark.parametrize("name", SCALARS + RESULTS)
@pytest.mark.parametrize(
    ("bad", "what"), [(0.0, "is zero"), (math.nan, "holds NaN or Inf"), (math.inf, "holds NaN or Inf")]
)
def test_rows_without_a_direction(name: str, bad: float, what: str, backend: str) -> None:
    function = getattr(fastaniso, name)
    hidden = X.view(4, 10, 6).clone()
    hidden[1, 7] = bad
    hidden[3, 2] = bad
    message = rf"hidden: row 17 {what} \(2 such row\(s\)\).* mask=.* invalid='omit'"
    with pytest.raises(InvalidRowsError, match=message):
        function(hidden, backend=backend)
    kept = hidden.view(40, 6)[hidden.view(40, 6).sum(1).isfinite() & (hidden.view(40, 6) != 0).any(1)]
    omitted, expected = function(hidden, invalid="omit", backend=backend), function(kept, backend=backend)
    if name in SCALARS:
        assert omitted == pytest.approx(expected, rel=1e-6)
    masked = torch.ones(4, 10, dtype=torch.bool)
    masked[1, 7] = masked[3, 2] = False
    function(hidden, mask=masked, backend=backend)


def test_zero_and_non_finite_rows_together(backend: str) -> None:
    hidden = X.clone()
    hidden[9], hidden[4, 2] = 0, math.inf
    with pytest.raises(InvalidRowsError, match=r"row 4 is the first that .* \(1 zero, 1 NaN or Inf\)"):
        fastaniso.mean_cosine(hidden, backend=backend)
    description = fastaniso.describe(hidden, invalid="omit", backend=backend)
    assert (description.n, vars(description.dropped)) == (38, {"masked": 0, "zero": 1, "nonfinite": 1})
    with pytest.raises(InvalidRowsError, match=r"other: row 4"):
        fastaniso.mean_cosine(X, hidden, backend=backend)
    labels = torch.arange(40) % 2
    with pytest.raises(InvalidRowsError, match=r"hidden: row 4"):
        fastaniso.group_cosine(hidden, labels, backend=backend)
    groups = fastaniso.group_cosine(hidden, labels, invalid="omit", backend=backend)
    assert groups.counts.tolist() == [19, 19]
    assert groups.dropped == description.dropped


ERRORS: dict[str, tuple[Any, type[Exception], str]] = {
    "integers": (X.long(), TypeError, r"hidden: expected float32, .*got int64; convert it first, .*hidden\.float\(\)"),
    "a list": ([[1.0, 2.0]], TypeError, r"hidden: expected a torch tensor, a NumPy array .* got list"),
    "strings": (np.array([["a"]]), TypeError, r"hidden: a NumPy array of dtype <U1"),
    "a vector": (X[0], ValueError, r"hidden: expected \[\.\.\., d\] .* got shape \(6,\); .*hidden\[None\]"),
    "no numbers": (X[:, :0], ValueError, r"hidden: expected rows of at least one number"),
    "a transposed tensor": (X.T, ValueError, r"hidden: expected the numbers of a row side by side.*contiguous"),
    "a sparse tensor": (X.to_sparse(), TypeError, r"hidden: expected a dense tensor, .*to_dense"),
}


@pytest.mark.parametrize("case", ERRORS)
@pytest.mark.parametrize("name", ["mean_cosine", "describe", "norms"])
def test_unusable_inputs_say_why(name: str, case: str) -> None:
    hidden, error, message = ERRORS[case]
    with pytest.raises(error, match=message):
        getattr(fastaniso, name)(hidden)


OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "mask of integers": ({"mask": torch.ones(40, dtype=torch.int64)}, TypeError, r"mask: expected bool .*mask\.bool"),
    "mask of another shape": ({"mask": torch.ones(39, dtype=torch.bool)}, ValueError, r"mask: .*\(40,\), got \(39,\)"),
    "mask elsewhere": ({"mask": torch.ones(40, dtype=torch.bool, device="meta")}, ValueError, r"mask: expected it on"),
    "unknown backend": ({"backend": "cuda"}, ValueError, r"backend: expected one of auto, triton, cpu, reference"),
    "triton for a CPU tensor": ({"backend": "triton"}, ValueError, r"backend: 'triton' needs rows on a GPU"),
    "unknown invalid": ({"invalid": "ignore"}, ValueError, r"invalid: expected 'raise' or 'omit', got 'ignore'"),
}


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize("name", SCALARS + RESULTS)
def test_unusable_options_say_why(name: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    options, error, message = OPTIONS[case]
    with pytest.raises(error, match=message):
        getattr(fastaniso, name)(X, **options)


def test_two_sets_live_in_one_space() -> None:
    with pytest.raises(ValueError, match="other: expected rows of 6 numbers as in hidden, got 5"):
        fastaniso.mean_cosine(X, X[:, :5])
    with pytest.raises(ValueError, match="other: expected rows of 6 numbers as in hidden, got 5"):
        fastaniso.cosine_std(X, X[:, :5])


def test_groups_say_what_is_wrong() -> None:
    with pytest.raises(TypeError, match="groups: expected integers, got float32"):
        fastaniso.group_cosine(X, torch.ones(40))
    with pytest.raises(
        ValueError, match=re.escape("groups: expected the shape of hidden without its last axis, (40,)")
    ):
        fastaniso.describe(X, groups=torch.ones(39, dtype=torch.int64))


@pytest.mark.parametrize("name", ["cosine_std", "participation_ratio", "isoscore", "effective_rank", "describe"])
def test_memory_limit(name: str) -> None:
    function = getattr(fastaniso, name)
    advice = "gram=False takes" if name == "describe" else "pass fewer dimensions"
    with pytest.raises(MemoryError, match=rf"memory_limit: 1 kB given, and the cpu kernel needs .*{advice}"):
        function(X, memory_limit="1 kB")
    function(X, memory_limit="1 GB")
    with pytest.raises(ValueError, match=r"memory_limit: expected bytes or a string such as '2 GB'"):
        function(X, memory_limit="plenty")


def test_backend_for_answers_without_running() -> None:
    assert fastaniso.backend_for(X) == "cpu"
    assert fastaniso.backend_for(X.numpy(), "reference") == "reference"
    assert fastaniso.backend_for(torch.full((3, 4), math.nan)) == "cpu"
    with pytest.raises(ValueError, match="backend: no kernel for meta tensors"):
        fastaniso.backend_for(X.to("meta"))


def test_describe_gives_what_is_asked_for(backend: str) -> None:
    spectral = ("participation_ratio", "isoscore", "effective_rank", "eigenvalues")
    for gram, std, scores in ((True, True, True), ("unit", True, False), ("raw", False, True), (False, False, False)):
        description = fastaniso.describe(X, gram=gram, backend=backend)
        assert (description.cosine_std is not None) == std
        assert all((getattr(description, name) is not None) == scores for name in spectral)
    with pytest.raises(ValueError, match="gram: expected False, True, 'raw' or 'unit', got 'full'"):
        fastaniso.describe(X, gram="full")


def test_describe_agrees_with_each_function(backend: str) -> None:
    labels = torch.arange(40) // 10
    description = fastaniso.describe(X, groups=labels, backend=backend)
    for name in SCALARS:
        assert getattr(description, name) == pytest.approx(getattr(fastaniso, name)(X, backend=backend), rel=1e-9), name
    assert description.drift == fastaniso.drift(X, backend=backend)
    assert description.norms == fastaniso.norms(X, backend=backend)
    contributions = fastaniso.dimension_contributions(X, backend=backend)
    assert description.contributions.values.tolist() == contributions.values.tolist()
    assert description.mean_cosine_without_top3 == contributions.mean_without_top(3)
    assert description.top_dimensions[0] == (contributions.top(1).indices[0], contributions.top(1).values[0])
    groups = fastaniso.group_cosine(X, labels, backend=backend)
    assert (description.within_groups, description.between_groups) == (groups.pooled_within, groups.pooled_between)
    assert description.groups == 4
    assert description.provenance == (f"float32 rows, {backend} kernel",)
