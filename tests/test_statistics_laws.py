"""Laws that hold for any rows: order, rotation, scale, splits, merges and masks."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastaniso
from fastaniso import Accumulator, Description

pytestmark = pytest.mark.filterwarnings("ignore:spectral scores")
law = settings(max_examples=25, deadline=None)

BACKEND = "reference"


@st.composite
def float64_rows(draw: st.DrawFn, *, smallest: int = 3) -> Tensor:
    n, d = draw(st.integers(smallest, 24)), draw(st.integers(2, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    offset = draw(st.sampled_from([0.0, 0.5, 30.0]))
    return torch.randn(n, d, dtype=torch.float64, generator=generator) + offset


def _describe(x: Tensor, **options: object) -> Description:
    return fastaniso.describe(x, backend=BACKEND, **options)  # type: ignore[arg-type]


COSINES = ("mean_cosine", "cosine_std")
SPECTRA = ("participation_ratio", "isoscore", "effective_rank")


def _agree(a: Description, b: Description, names: tuple[str, ...], tolerance: float = 1e-7) -> None:
    for name in names:
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=tolerance, abs=tolerance), name


@law
@given(float64_rows(), st.randoms(use_true_random=False))
def test_order_does_not_matter(x: Tensor, random: object) -> None:
    order = list(range(len(x)))
    random.shuffle(order)  # type: ignore[attr-defined]
    a, b = _describe(x), _describe(x[order])
    _agree(a, b, (*COSINES, *SPECTRA, "mean_cosine_without_top3"))
    assert a.norms.min == b.norms.min
    assert a.drift.norm_of_mean == pytest.approx(b.drift.norm_of_mean)


@law
@given(float64_rows(), st.integers(0, 2**32))
def test_rotation_changes_neither_cosines_nor_spectra(x: Tensor, seed: int) -> None:
    d = x.shape[1]
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))
    a, b = _describe(x), _describe(x @ rotation)
    _agree(a, b, (*COSINES, *SPECTRA), tolerance=1e-6)
    assert a.norms.mean == pytest.approx(b.norms.mean)
    assert a.drift.unit == pytest.approx(b.drift.unit, abs=1e-9)


@law
@given(float64_rows(), st.integers(0, 2**32))
def test_the_scale_of_a_row_does_not_change_cosines(x: Tensor, seed: int) -> None:
    scale = torch.rand(len(x), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 1e3 + 1e-3
    a, b = _describe(x), _describe(x * scale)
    _agree(a, b, (*COSINES, "mean_cosine_without_top3"))
    assert a.contributions.values.tolist() == pytest.approx(b.contributions.values.tolist(), abs=1e-12)


@law
@given(float64_rows(), st.floats(1e-20, 1e20))
def test_one_scale_for_all_changes_norms_only(x: Tensor, scale: float) -> None:
    a, b = _describe(x), _describe(x * scale)
    _agree(a, b, (*COSINES, *SPECTRA))
    assert b.norms.mean == pytest.approx(a.norms.mean * scale)
    assert b.drift.norm_of_mean == pytest.approx(a.drift.norm_of_mean * scale)
    assert b.drift.relative == pytest.approx(a.drift.relative)


@law
@given(float64_rows(), st.lists(st.integers(0, 24), max_size=3), st.integers(1, 4))
def test_split_is_whole(x: Tensor, cuts: list[int], groups: int) -> None:
    ids = torch.arange(len(x)) % groups
    whole = Accumulator(gram=True, groups=groups, backend=BACKEND).update(x, groups=ids).result()
    split = Accumulator(gram=True, groups=groups, backend=BACKEND)
    edges = [0, *sorted(min(cut, len(x)) for cut in cuts), len(x)]
    for start, stop in itertools.pairwise(edges):
        split.update(x[start:stop], groups=ids[start:stop])
    result = split.result()
    _agree(whole, result, (*COSINES, *SPECTRA))
    assert (result.n, result.pairs) == (whole.n, whole.pairs)
    assert (result.within_groups, result.between_groups) == pytest.approx(
        (whole.within_groups, whole.between_groups), abs=1e-12, nan_ok=True
    )


@law
@given(float64_rows(smallest=6), st.permutations(range(3)))
def test_merging_is_associative_and_commutative(x: Tensor, order: list[int]) -> None:
    parts = [Accumulator(gram=True, backend=BACKEND).update(part) for part in x.tensor_split(3)]
    a, b, c = (parts[i] for i in order)
    left, right = ((a + b) + c).result(), (a + (b + c)).result()
    whole = _describe(x)
    for merged in (left, right):
        _agree(merged, whole, (*COSINES, *SPECTRA))
    assert [part.result().n for part in parts] == [len(part) for part in x.tensor_split(3)]


@law
@given(float64_rows(), st.integers(0, 2**32))
def test_masked_is_dropped(x: Tensor, seed: int) -> None:
    keep = torch.rand(len(x), generator=torch.Generator().manual_seed(seed)) < 0.6
    x = torch.where(keep[:, None], x, torch.nan)
    ids = torch.arange(len(x)) % 2
    masked = _describe(x, mask=keep, groups=ids)
    dropped = _describe(x[keep], groups=ids[keep])
    assert masked.dropped.masked == (~keep).sum()
    assert masked.n == dropped.n
    plain = {**masked.to_dict(), "dropped": None, "notes": None}
    for name, value in dropped.to_dict().items():
        if name not in ("dropped", "notes", "top_dimensions"):
            assert plain[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name


@law
@given(float64_rows())
def test_ranges(x: Tensor) -> None:
    n, d = x.shape
    description = _describe(x)
    assert -1 / (n - 1) - 1e-12 <= description.mean_cosine <= 1 + 1e-12
    assert 0 <= description.cosine_std <= 1
    assert 1 - 1e-9 <= description.participation_ratio <= min(n - 1, d) + 1e-9
    assert -1e-9 <= description.isoscore <= 1 + 1e-9
    assert 1 - 1e-9 <= description.effective_rank <= min(n, d) + 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert fastaniso.participation_ratio(x, backend=BACKEND) == description.participation_ratio
