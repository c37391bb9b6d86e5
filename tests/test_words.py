"""Words, sentences and sequences against brute force; laws; streaming; what is refused."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from brute_force import units, within_between
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastaniso
from fastaniso import InvalidRowsError
from fastaniso.functional import group_stream, word_mev

law = settings(max_examples=25, deadline=None)
BACKENDS = ("reference", "cpu")
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(90, 6, generator=GENERATOR) + 0.3
# Labels of any value, in no order, one of them once.
LABELS = torch.tensor([-7, 3, 10**12, 5, 0])[torch.randint(0, 4, (90,), generator=GENERATOR)]
LABELS[11] = 0
NAMES = {
    "self_similarity": "words",
    "inter_cosine": "words",
    "intra_sentence_similarity": "sentences",
    "sequence_cosine": "sequences",
    "word_mev": "words",
    "rank_collapse": "sequences",
}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu":
        pytest.importorskip("fastaniso._cpu")
    return str(request.param)


def off_diagonal(table: Tensor) -> Tensor:
    return table[~torch.eye(len(table), dtype=torch.bool)]


def self_similarities(x: Tensor, labels: Tensor) -> list[float]:
    """Of each word in order, all its cosines formed."""
    of_words = (units(x[labels == word]) for word in labels.unique())
    return [off_diagonal(u @ u.T).mean().item() for u in of_words]


def intra_similarities(x: Tensor, labels: Tensor) -> list[float]:
    found = []
    for label in labels.unique():
        tokens = x[labels == label].double()
        found.append((units(tokens) @ units(tokens.mean(0)[None])[0]).mean().item())
    return found


def explained(x: Tensor, labels: Tensor) -> list[float]:
    """Of each word in order, σ₁²/Σσ² of its rows."""
    found = []
    for label in labels.unique():
        squares = torch.linalg.svdvals(x[labels == label].double()).square()
        found.append((squares[0] / squares.sum()).item())
    return found


def residual(x: Tensor) -> float:
    """Of the rows of a sequence, what their mean leaves over, as a share of their length."""
    rows = x.double()
    return float((rows - rows.mean(0)).norm() / rows.norm())


def inter_of_all_draws(x: Tensor, labels: Tensor) -> float:
    """Mean over pairs of types of the mean over their occurrences."""
    groups = [units(x[labels == word]) for word in labels.unique()]
    means = [(a @ b.T).mean() for i, a in enumerate(groups) for j, b in enumerate(groups) if i != j]
    return torch.stack(means).mean().item() if means else math.nan


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_against_brute_force(dtype: torch.dtype, masked: bool, backend: str) -> None:
    x = X.to(dtype)
    mask = torch.rand(90, generator=torch.Generator().manual_seed(1)) > 0.3 if masked else None
    kept, labels = (x, LABELS) if mask is None else (x[mask], LABELS[mask])
    options: dict[str, Any] = {"mask": mask, "backend": backend}
    tolerance = 1e-13 if dtype == torch.float64 else 1e-6
    counts = [int((labels == word).sum()) for word in labels.unique()]

    def near(value: Any) -> Any:
        return pytest.approx(value, abs=tolerance, nan_ok=True)

    words = fastaniso.self_similarity(x, LABELS, **options)
    expected = self_similarities(kept, labels)
    u = units(kept)
    baseline = off_diagonal(u @ u.T).mean().item()
    assert words.labels.tolist() == labels.unique().tolist()
    assert words.counts.tolist() == counts
    assert words.values.tolist() == near(expected)
    assert (words.types, words.words, words.n) == (len(counts), sum(c > 1 for c in counts), len(kept))
    assert words.mean == near(np.nanmean(expected))
    assert words.baseline == near(baseline)
    assert words.adjusted == near(words.mean - baseline)
    assert words.inter == near(inter_of_all_draws(kept, labels))
    assert fastaniso.inter_cosine(x, LABELS, **options) == words.inter

    sentences = fastaniso.intra_sentence_similarity(x, LABELS, **options)
    expected = intra_similarities(kept, labels)
    assert sentences.values.tolist() == near(expected)
    assert sentences.mean == near(np.mean([v for v, c in zip(expected, counts, strict=True) if c > 1]))
    assert sentences.adjusted == near(sentences.mean - baseline)

    sequences = fastaniso.sequence_cosine(x, LABELS, **options)
    assert (sequences.pooled_within, sequences.across) == near(within_between(kept, labels))
    assert sequences.within == words.mean
    assert sequences.values.tolist() == near(words.values.tolist())
    variance = fastaniso.word_mev(x, LABELS, **options)
    expected = explained(kept, labels)
    assert variance.labels.tolist() == words.labels.tolist()
    assert variance.values.tolist() == near(expected)
    assert variance.mean == near(np.mean([v for v, c in zip(expected, counts, strict=True) if c > 1]))
    assert variance.baseline == near(explained(kept, torch.zeros(len(kept)))[0])
    assert variance.adjusted == near(variance.mean - variance.baseline)
    collapse = fastaniso.rank_collapse(x, LABELS, **options)
    expected = [residual(kept[labels == label]) for label in labels.unique()]
    assert collapse.values.tolist() == near(expected)
    assert collapse.mean == near(np.mean([v for v, c in zip(expected, counts, strict=True) if c > 1]))
    means = fastaniso.group_cosine(x, LABELS, **options)
    assert (sequences.pooled_within, sequences.across) == near((means.pooled_within, means.pooled_between))


def test_known_values(backend: str) -> None:
    x = torch.tensor([[1.0, 0], [0, 2], [3, 0], [-1, 0], [0, 5]])
    words = torch.tensor([4, 4, 7, 7, 9])
    found = fastaniso.self_similarity(x, words, backend=backend)
    assert found.values.tolist() == pytest.approx([0, -1, math.nan], nan_ok=True)
    # ū = (½, ½), 0, (0, 1): products 0, ½ and 0, each twice among six ordered pairs.
    assert (found.mean, found.inter, found.baseline) == pytest.approx((-0.5, 1 / 6, -0.0), abs=1e-12)
    sentences = fastaniso.intra_sentence_similarity(x, words, min_count=1, backend=backend)
    # Means (½, 1), (1, 0), (0, 5): cosines 1/√5 and 2/√5; 1 and −1; 1.
    assert sentences.values.tolist() == pytest.approx([1.5 / 5**0.5, 0, 1])
    assert (sentences.mean, sentences.sentences) == (pytest.approx((1.5 / 5**0.5 + 1) / 3), 3)
    sequences = fastaniso.sequence_cosine(x, words, backend=backend)
    assert (sequences.within, sequences.pooled_within) == pytest.approx((-0.5, -0.5))
    # Unordered pairs across: (1, 3), (1, 4), (2, 5) are 1, −1, 1, and five are 0.
    assert sequences.across == pytest.approx(1 / 8)


def test_words_of_many_and_of_few_occurrences_in_any_scale() -> None:
    """One vector explains one row, a line, an axis of a plane; more rows than dimensions; squares beyond float64."""
    x = torch.tensor([[3.0, 4, 0], [1, 2, 2], [-2, -4, -4], [2, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]])
    words = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2])
    for scale in (1.0, 1e100, 1e-100):
        found = fastaniso.word_mev(x.double() * scale, words)
        # Squares of the last: 4 + 1, 2, 1.
        assert found.values.tolist() == pytest.approx([1, 1, 5 / 8], abs=1e-14)
        assert (found.types, found.words) == (3, 2)
    # Rows of n occurrences of random words have 1/n or more: why rare words are above the baseline.
    isotropic = torch.randn(4000, 64, generator=torch.Generator().manual_seed(5))
    rare = fastaniso.word_mev(isotropic, torch.arange(4000) // 4)
    frequent = fastaniso.word_mev(isotropic, torch.arange(4000) // 1000)
    assert rare.values.min() > 1 / 4
    assert rare.mean > 5 * frequent.mean > 5 / 64
    assert frequent.adjusted < 0.01
    assert fastaniso.word_mev(isotropic, torch.zeros(4000, dtype=torch.int64)).adjusted == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-200])
def test_rank_collapse_from_all_alike_to_a_mean_of_zero(scale: float) -> None:
    x = scale * torch.tensor([[3.0, 4], [3, 4], [1, 0], [-1, 0], [2, 0], [0, 2], [5, 5]], dtype=torch.float64)
    found = fastaniso.rank_collapse(x, torch.tensor([0, 0, 1, 1, 2, 2, 3]))
    # Of (2, 0) and (0, 2) the mean is (1, 1): 4 of 8 are left.
    assert found.values.tolist() == pytest.approx([0, 1, 0.5**0.5, 0], abs=1e-12)
    assert (found.mean, found.sequences) == (pytest.approx((1 + 0.5**0.5) / 3), 3)
    # Near collapse the formula with 1 − T‖x̄‖²/‖X‖² has no digits left.
    near = scale * (torch.ones(64, 8, dtype=torch.float64) + 1e-9 * torch.arange(512.0).view(64, 8).sin())
    alone = fastaniso.rank_collapse(near, torch.zeros(64, dtype=torch.int64)).mean
    assert alone == pytest.approx(residual(near / scale), rel=1e-5)


def test_min_count() -> None:
    some = fastaniso.self_similarity(X, LABELS, min_count=20)
    assert some.mean == pytest.approx(some.values[some.counts >= 20].mean())
    assert 0 < some.words < some.types
    none = fastaniso.self_similarity(X, LABELS, min_count=1000)
    assert (none.words, math.isnan(none.mean), math.isnan(none.adjusted)) == (0, True, True)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("rows_at_once", [1, 7, 89, 90])
def test_blocks_change_nothing(rows_at_once: int, ordered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = LABELS.sort().values if ordered else LABELS
    mask = torch.arange(90) % 5 > 0
    x = X.double()
    whole = [getattr(fastaniso, name)(x, labels, mask=mask) for name in NAMES]
    monkeypatch.setattr(group_stream, "_NUMBERS", 6 * rows_at_once)
    monkeypatch.setattr(word_mev, "_NUMBERS", 6 * rows_at_once)
    for name, expected in zip(NAMES, whole, strict=True):
        found = getattr(fastaniso, name)(x, labels, mask=mask)
        if name == "inter_cosine":
            assert found == pytest.approx(expected, abs=1e-13)
            continue
        assert found.labels.tolist() == expected.labels.tolist()
        assert found.values.tolist() == pytest.approx(expected.values.tolist(), abs=1e-13, nan_ok=True)
        for field in ("mean", "inter", "within", "across", "pooled_within"):
            if hasattr(found, field):
                assert getattr(found, field) == pytest.approx(getattr(expected, field), abs=1e-13)


def test_rows_in_order_are_read_as_they_lie() -> None:
    batch = torch.randn(6, 11, 5, generator=torch.Generator().manual_seed(2))[:, 1:]
    sentences = torch.arange(6)[:, None].expand(6, 10).clone()
    mask = torch.arange(10) < torch.tensor([10, 3, 7, 1, 10, 5])[:, None]
    sentences[~mask] = -100  # padding has any label
    given = group_stream.labelled(
        batch, sentences, mask, name="sentences", backend="cpu", invalid="raise", memory_limit=None
    )
    assert given.order is None
    found = fastaniso.intra_sentence_similarity(batch, sentences, mask=mask, min_count=1)
    assert found.labels.tolist() == list(range(6))
    assert found.counts.tolist() == [10, 3, 7, 1, 10, 5]
    assert found.values.tolist() == pytest.approx(intra_similarities(batch[mask], sentences[mask]), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_rows_without_a_direction(name: str) -> None:
    x = X.clone()
    x[3], x[50, 2] = 0, math.nan
    x[LABELS == 5] = 0  # a word of which nothing is left
    with pytest.raises(InvalidRowsError, match=r"hidden: row .* is the first that is zero"):
        getattr(fastaniso, name)(x, LABELS)
    kept = x.isfinite().all(1) & (x != 0).any(1)
    found = getattr(fastaniso, name)(x, LABELS, invalid="omit")
    alone = getattr(fastaniso, name)(x[kept], LABELS[kept])
    if name == "inter_cosine":
        assert found == pytest.approx(alone, abs=1e-7)
        return
    assert found.labels.tolist() == alone.labels.tolist()
    assert found.values.tolist() == pytest.approx(alone.values.tolist(), abs=1e-6, nan_ok=True)
    assert (found.dropped.zero, found.dropped.nonfinite) == (int((x == 0).all(1).sum()), 1)


@pytest.mark.parametrize("name", NAMES)
def test_no_row(name: str) -> None:
    nothing = torch.zeros(90, dtype=torch.bool)
    for found in (
        getattr(fastaniso, name)(X, LABELS, mask=nothing),
        getattr(fastaniso, name)(X[:0], LABELS[:0]),
    ):
        if name == "inter_cosine":
            assert math.isnan(found)
        else:
            assert (found.n, len(found.labels)) == (0, 0)
            assert math.isnan(getattr(found, "mean", math.nan))
            assert "rows" in str(found)


def test_draws_of_an_instance() -> None:
    draws = [fastaniso.inter_cosine(X, LABELS, seed=seed) for seed in range(300)]
    assert draws[0] == fastaniso.inter_cosine(X, LABELS, seed=0)
    exact = fastaniso.inter_cosine(X, LABELS)
    assert np.mean(draws) == pytest.approx(exact, abs=4 * np.std(draws) / 300**0.5)
    assert np.std(draws) > 0.01
    # One row a type, no choice: all of them.
    alone = torch.arange(90)
    assert fastaniso.inter_cosine(X, alone, seed=1) == pytest.approx(fastaniso.mean_cosine(X), abs=1e-7)
    assert fastaniso.inter_cosine(X, alone) == pytest.approx(fastaniso.mean_cosine(X), abs=1e-7)
    x = X.clone()
    x[5] = 0
    kept = torch.arange(90) != 5
    assert fastaniso.inter_cosine(x, alone, seed=1, invalid="omit") == pytest.approx(
        fastaniso.mean_cosine(X[kept]), abs=1e-7
    )


@law
@given(st.integers(3, 40), st.integers(1, 6), st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 30.0]))
def test_laws(n: int, groups: int, seed: int, offset: float) -> None:
    """Order of the rows, names of the labels, rotation, and scale of single rows (not for the mean of rows)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, dtype=torch.float64, generator=generator) + offset
    labels = torch.randint(0, groups, (n,), generator=generator)
    order = torch.randperm(n, generator=generator)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator))[0]
    scale = torch.rand(n, 1, dtype=torch.float64, generator=generator) + 0.1
    moved, renamed = (x @ rotation)[order], 3 * labels[order] - 50
    a, b = fastaniso.self_similarity(x, labels), fastaniso.self_similarity(moved * scale, renamed)
    assert a.values.tolist() == pytest.approx(b.values.tolist(), abs=1e-9, nan_ok=True)
    assert (a.inter, a.baseline) == pytest.approx((b.inter, b.baseline), abs=1e-9, nan_ok=True)
    bounds = -1 / (a.counts - 1.0).clip(min=1)
    assert ((a.values >= bounds - 1e-9) | np.isnan(a.values)).all()
    c, d = fastaniso.sequence_cosine(x, labels), fastaniso.sequence_cosine(moved * scale, renamed)
    assert (c.within, c.across) == pytest.approx((d.within, d.across), abs=1e-9, nan_ok=True)
    e = fastaniso.intra_sentence_similarity(x, labels, min_count=1)
    f = fastaniso.intra_sentence_similarity(moved * 1e3, renamed, min_count=1)
    assert e.values.tolist() == pytest.approx(f.values.tolist(), abs=1e-9)
    g, h = fastaniso.word_mev(x, labels), fastaniso.word_mev(moved * 1e3, renamed)
    assert g.values.tolist() == pytest.approx(h.values.tolist(), abs=1e-9)
    assert g.baseline == pytest.approx(h.baseline, abs=1e-9)
    assert ((g.values >= 1 / np.minimum(g.counts, 4) - 1e-12) & (g.values <= 1 + 1e-12)).all()
    i, j = fastaniso.rank_collapse(x, labels), fastaniso.rank_collapse(moved * 1e3, renamed)
    assert i.values.tolist() == pytest.approx(j.values.tolist(), abs=1e-9)
    # All rows twice: the mean of a sentence stays, a word gains pairs of a row and its copy.
    twice, both = torch.cat((x, x)), torch.cat((labels, labels))
    again = fastaniso.intra_sentence_similarity(twice, both, min_count=1)
    assert again.values.tolist() == pytest.approx(e.values.tolist(), abs=1e-9)
    assert fastaniso.word_mev(twice, both).values.tolist() == pytest.approx(g.values.tolist(), abs=1e-9)
    doubled, k = fastaniso.self_similarity(twice, both), a.counts
    expected = (2 * (k - 1) * np.nan_to_num(a.values) + 1) / (2 * k - 1)
    assert doubled.values.tolist() == pytest.approx(expected.tolist(), abs=1e-9)
    assert doubled.inter == pytest.approx(a.inter, abs=1e-9, nan_ok=True)


def test_many_groups_in_the_memory_of_a_block() -> None:
    """Sums of all groups would take 8 bytes a number: 61 MB."""
    n, d = 60_000, 128
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(3))
    words = torch.randperm(n, generator=torch.Generator().manual_seed(4)) // 2
    given = group_stream.labelled(x, words, None, name="words", backend="cpu", invalid="raise", memory_limit=None)
    assert given.order is not None
    assert max(len(sums.labels) for sums in given.groups(raw=True)) <= group_stream._NUMBERS // d + 1
    found = fastaniso.self_similarity(x, words)
    assert found.types == n // 2
    at = words.argsort(stable=True).view(-1, 2)
    u = units(x)
    np.testing.assert_allclose(found.values, (u[at[:, 0]] * u[at[:, 1]]).sum(1).numpy(), atol=1e-6)
    # NumPy's share: what is told by group.
    tracemalloc.start()
    fastaniso.self_similarity(x, words)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * n


def test_bad_input() -> None:
    for name, argument in NAMES.items():
        function = getattr(fastaniso, name)
        with pytest.raises(TypeError, match=f"{argument}: expected integers, got float32"):
            function(X, LABELS.float())
        with pytest.raises(ValueError, match=rf"{argument}: expected the shape of hidden .* \(90,\), got \(89,\)"):
            function(X, LABELS[1:])
        with pytest.raises(ValueError, match="invalid: expected"):
            function(X, LABELS, invalid="skip")
        with pytest.raises(MemoryError, match="memory_limit: 10 kB given"):
            function(X, LABELS, memory_limit="10 kB")
        function(X, LABELS, memory_limit="100 MB")
    for count in (1, 2.5, True):
        with pytest.raises(ValueError, match="min_count: expected an int of at least 2"):
            fastaniso.self_similarity(X, LABELS, min_count=count)
        with pytest.raises(ValueError, match="min_count: expected an int of at least 2"):
            fastaniso.word_mev(X, LABELS, min_count=count)
    with pytest.raises(ValueError, match="min_count: expected an int of at least 1, got 0"):
        fastaniso.intra_sentence_similarity(X, LABELS, min_count=0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("self_similarity", "less the baseline"),
        ("intra_sentence_similarity", "intra-sentence similarity"),
        ("sequence_cosine", "mean cosine across"),
        ("word_mev", "maximum explainable variance"),
        ("rank_collapse", "rank-collapse residual"),
    ],
)
def test_results_print_and_go_to_json(name: str, words: str) -> None:
    found = getattr(fastaniso, name)(X, LABELS)
    assert words in str(found)
    plain = json.loads(found.to_json())
    assert plain["n"] == 90
    assert "values" not in plain
    assert set(plain["conventions"]) >= {"values"}
    with pytest.raises(ValueError, match="read-only"):
        found.values[0] = 0


def test_describe_gives_the_same_numbers() -> None:
    words = torch.unique(LABELS, return_inverse=True)[1] * 2  # ids 1, 3, … are of no row
    names = ["self_similarity", "inter_cosine", "sequence_cosine", ("self_similarity", {"min_count": 20})]
    given = fastaniso.describe(X, groups=words, metrics=names).metrics
    by_batch = fastaniso.Accumulator(metrics=names, groups=9).update(X, groups=words).result().metrics
    for found in (given, by_batch):
        for label, options in (("self_similarity", {}), ("self_similarity(min_count=20)", {"min_count": 20})):
            result = fastaniso.self_similarity(X, words, **options)
            for field, value in found[label].items():
                assert value == pytest.approx(getattr(result, field), abs=1e-7), field
        assert found["inter_cosine"] == pytest.approx(fastaniso.inter_cosine(X, words), abs=1e-7)
        sequences = fastaniso.sequence_cosine(X, words)
        for field, value in found["sequence_cosine"].items():
            assert value == pytest.approx(getattr(sequences, field), abs=1e-6), field
