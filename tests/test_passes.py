"""Second-pass metrics against brute force, closed forms and laws; their memory; what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from brute_force import cosines, units
from cases import CASES, make
from hypothesis import given, settings
from hypothesis import strategies as st
from test_statistics_laws import float64_rows
from torch import Tensor

import fastaniso
from fastaniso import InvalidRowsError
from fastaniso.functional import passes

law = settings(max_examples=25, deadline=None)
BACKENDS = ("reference", "cpu")
X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)) + 0.3


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu":
        pytest.importorskip("fastaniso._cpu")
    return str(request.param)


def kept(x: Tensor, mask: Tensor | None) -> Tensor:
    usable = x.isfinite().all(1) & (x != 0).any(1)
    return usable if mask is None else usable & mask


def log_partition(x: Tensor, directions: Tensor) -> Tensor:
    """log Z(c), one c after another."""
    return torch.stack([torch.logsumexp(x @ c, 0) for c in directions])


def isotropy_of(x: Tensor, *, both: bool = True) -> float:
    x = x.double()
    vectors = torch.linalg.eigh(x.T @ x)[1].T
    logs = log_partition(x, torch.cat((vectors, -vectors)) if both else vectors)
    return math.exp(logs.min() - logs.max())


def rotation(d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))[0]


@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_row_mean_cosines(case: str, dtype: str, backend: str) -> None:
    hidden, mask = make(case, dtype)
    found = fastaniso.row_mean_cosines(hidden, mask=mask, invalid="omit", backend=backend)
    assert (found.dtype, found.shape) == (torch.float64, hidden.shape[:-1])
    keep = kept(hidden, mask)
    assert torch.equal(found.isnan(), ~keep if int(keep.sum()) > 1 else torch.ones_like(keep))
    if int(keep.sum()) < 2:
        return
    u = units(hidden[keep])
    table = u @ u.T
    expected = (table.sum(1) - table.diagonal()) / (len(u) - 1)
    # s is summed by the kernel: float32's roundings of n unit rows, over n − 1.
    tolerance = 1e-14 if dtype == "f64" else 3e-7
    torch.testing.assert_close(found[keep], expected, rtol=0, atol=tolerance)
    whole = fastaniso.mean_cosine(hidden, mask=mask, invalid="omit", backend=backend)
    assert found[keep].mean().item() == pytest.approx(whole, abs=tolerance)


@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_cosine_to_mean(case: str, dtype: str, backend: str) -> None:
    hidden, mask = make(case, dtype)
    found = fastaniso.cosine_to_mean(hidden, mask=mask, invalid="omit", backend=backend)
    keep = kept(hidden, mask)
    assert (found.n, len(found.cosines)) == (int(keep.sum()), len(hidden))
    x = hidden[keep].double()
    mean = x.mean(0)
    if not len(x) or torch.linalg.vector_norm(mean) < 1e-3 * x.abs().max():
        return  # the mean is rounding, and so is its direction
    expected = units(hidden[keep]) @ units(mean[None])[0]
    # An error of the mean of 1e-6 of its length turns it by 1e-6.
    tolerance = 1e-12 if dtype == "f64" else 1e-6 * float(x.norm(dim=1).mean() / mean.norm())
    np.testing.assert_allclose(found.cosines[keep.numpy()], expected.numpy(), rtol=0, atol=tolerance)
    assert np.isnan(found.cosines[~keep.numpy()]).all()
    values = (found.mean, found.std, found.min, found.max)
    wanted = (expected.mean(), expected.std(correction=0), expected.min(), expected.max())
    assert values == pytest.approx([float(value) for value in wanted], abs=tolerance)
    q = np.linspace(0, 1, 7)
    assert np.abs(found.quantile(q) - np.quantile(expected, q, method="inverted_cdf")).max() <= 2 * tolerance
    assert found.quantile(0.5).shape == ()


@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_centered_mean_cosine(case: str, dtype: str, backend: str) -> None:
    hidden, mask = make(case, dtype)
    hidden, mask = hidden[:300], None if mask is None else mask[:300]
    keep = kept(hidden, mask)
    x = hidden[keep].double()
    centred = x - x.mean(0)
    at_mean = torch.linalg.vector_norm(centred, dim=1) <= 1e-12 * x.norm(dim=1).mean()
    found = fastaniso.centered_mean_cosine(hidden, mask=mask, invalid="omit", backend=backend)
    if int((~at_mean).sum()) < 2:
        assert math.isnan(found)
        return
    assert found == pytest.approx(cosines(centred[~at_mean]).mean().item(), abs=1e-9)


def test_centered_mean_cosine_by_hand(backend: str) -> None:
    # About the mean (5, 5): right, left, up and down, and twice as far to the right and to the left.
    x = torch.tensor([[6.0, 5], [4, 5], [5, 6], [5, 4], [7, 5], [3, 5]])
    assert fastaniso.centered_mean_cosine(x, backend=backend) == pytest.approx(-1 / 5, abs=1e-12)
    assert fastaniso.centered_mean_cosine(x[:2], backend=backend) == pytest.approx(-1)
    with_mean = torch.cat((x, torch.tensor([[5.0, 5]])))
    with pytest.raises(InvalidRowsError, match=r"hidden: row 6 equals the mean of the rows \(1 such row"):
        fastaniso.centered_mean_cosine(with_mean, backend=backend)
    assert fastaniso.centered_mean_cosine(with_mean, invalid="omit", backend=backend) == pytest.approx(-1 / 5)
    same = torch.full((100, 3), 0.1)
    with pytest.raises(InvalidRowsError, match=r"row 0 equals the mean of the rows \(100 such"):
        fastaniso.centered_mean_cosine(same, backend=backend)


def test_a_large_drift_costs_no_digits(backend: str) -> None:
    x = torch.randn(2000, 16, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 17) + 3000.0
    expected = cosines(x.double() - x.double().mean(0)).mean().item()
    assert fastaniso.centered_mean_cosine(x, backend=backend) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", ["isotropic", "drifted", "one_huge_dimension", "odd_d", "huge_norms", "masked"])
@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16"])
def test_partition_isotropy(case: str, dtype: str, backend: str) -> None:
    hidden, mask = make(case, dtype)
    hidden, mask = hidden[:, :20], mask
    x = hidden[kept(hidden, mask)]
    found = fastaniso.partition_isotropy(hidden, mask=mask, backend=backend)
    # The exponents are as exact as the eigenvectors: float32's scatter turns them by about 1e-6.
    tolerance = 1e-9 if dtype == "f64" else 2e-4
    assert found == pytest.approx(isotropy_of(x), rel=tolerance * (1 + float(x.norm(dim=1).max())), abs=1e-300)
    of_units = fastaniso.partition_isotropy(hidden, unit=True, mask=mask, backend=backend)
    assert of_units == pytest.approx(isotropy_of(units(x)), rel=tolerance)


def test_partition_isotropy_of_points_on_the_axes(backend: str) -> None:
    # ±a_k on axis k: along it Z = 2cosh a_k + 2(d − 1), the same on both sides.
    a = torch.tensor([0.5, 1, 2], dtype=torch.float64)
    x = torch.cat((torch.diag(a), -torch.diag(a)))
    z = 2 * torch.cosh(a) + 4
    expected = float(z.min() / z.max())
    assert fastaniso.partition_isotropy(x, backend=backend) == pytest.approx(expected, rel=1e-12)
    assert fastaniso.partition_isotropy(x, legacy="one-sided", backend=backend) == pytest.approx(expected, rel=1e-12)
    # All rows on one side: exp(−a) behind, exp(a) before; in one dimension nothing else is left.
    one = torch.full((7, 1), 1.5)
    assert fastaniso.partition_isotropy(one, backend=backend) == pytest.approx(math.exp(-3), rel=1e-6)
    assert fastaniso.partition_isotropy(-one, legacy="one-sided", backend=backend) == 1


def test_one_sided_is_no_smaller_and_rows_of_the_eigenvectors_say_little() -> None:
    x = torch.randn(400, 12, generator=torch.Generator().manual_seed(2)).double() * 0.3 + 0.5
    both = fastaniso.partition_isotropy(x)
    one = fastaniso.partition_isotropy(x, legacy="one-sided")
    vectors = torch.linalg.eigh(x.T @ x)[1]
    vectors = vectors * torch.where(vectors.gather(0, vectors.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)
    logs = log_partition(x, vectors.T)
    assert one == pytest.approx(math.exp(logs.min() - logs.max()), rel=1e-9)
    assert both < one
    wrong = log_partition(x, vectors)
    assert math.exp(wrong.min() - wrong.max()) > 5 * both


def test_the_scale_of_the_rows_matters_and_that_of_unit_rows_does_not() -> None:
    scores = [fastaniso.partition_isotropy(X * scale) for scale in (1.0, 2.0, 4.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[2] < scores[0] / 2
    of_units = [fastaniso.partition_isotropy(X.double() * scale, unit=True) for scale in (1.0, 4.0)]
    assert of_units[0] == pytest.approx(of_units[1], rel=1e-9)


@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16"])
@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.5])
def test_alignment(alpha: float, dtype: str, backend: str) -> None:
    hidden, _ = make("odd_d", dtype)
    positives = hidden.flip(0) * 3
    expected = torch.linalg.vector_norm(units(hidden) - units(positives), dim=1).pow(alpha).mean()
    found = fastaniso.alignment(hidden, positives, alpha=alpha, backend=backend)
    assert found == pytest.approx(expected.item(), rel=1e-12)


def test_alignment_of_near_pairs_keeps_its_digits() -> None:
    x = torch.randn(50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    near = x + 1e-9 * x.roll(1, 1)
    expected = (units(x) - units(near)).square().sum(1).mean().item()
    assert 0 < fastaniso.alignment(x, near) == pytest.approx(expected, rel=1e-6)
    assert fastaniso.alignment(x, 2 * x) < 1e-30
    assert fastaniso.alignment(x, -x, alpha=3) == pytest.approx(8)


def test_alignment_pairs_rows_by_their_index() -> None:
    generator = torch.Generator().manual_seed(4)
    whole = torch.randn(7, 9, 5, generator=generator)
    x, y = whole[:, 2:], torch.randn(7, 7, 5, generator=generator)
    mask = torch.rand(7, 7, generator=generator) > 0.3
    y[0, 0], y[3, 1, 2] = 0, math.nan
    counted = mask & (y != 0).any(-1) & y.isfinite().all(-1)
    expected = (units(x[counted]) - units(y[counted])).square().sum(1).mean().item()
    for a, b in ((x, y), (y, x)):
        assert fastaniso.alignment(a, b, mask=mask, invalid="omit") == pytest.approx(expected, rel=1e-12)
    with pytest.raises(InvalidRowsError, match="positives: row 0 is the first"):
        fastaniso.alignment(x, y)
    with pytest.raises(InvalidRowsError, match="hidden: row 0 is the first"):
        fastaniso.alignment(y, x)
    # Strides that no two row axes have in common.
    four = torch.randn(2, 3, 4, 5, generator=generator)
    one, other = four[:, :2, :].flatten(0, 0), torch.randn(2, 2, 6, 5, generator=generator)[:, :, :4]
    with pytest.raises(ValueError, match="positives: its rows lie at other strides"):
        fastaniso.alignment(one, other)


ALL: dict[str, Callable[..., Any]] = {
    "row_mean_cosines": fastaniso.row_mean_cosines,
    "cosine_to_mean": fastaniso.cosine_to_mean,
    "centered_mean_cosine": fastaniso.centered_mean_cosine,
    "partition_isotropy": fastaniso.partition_isotropy,
    "alignment": lambda x, **options: fastaniso.alignment(x, x.flip(0), **options),
}


@pytest.mark.parametrize("name", ALL)
def test_dropped_rows(name: str, backend: str) -> None:
    x = X.clone()
    x[5], x[17, 3] = 0, math.inf
    with pytest.raises(InvalidRowsError, match=r"hidden: row 5 is the first .*1 zero, 1 NaN or Inf"):
        ALL[name](x, backend=backend)
    with pytest.raises(ValueError, match="invalid: expected 'raise' or 'omit', got 'drop'"):
        ALL[name](x, invalid="drop", backend=backend)
    mask = torch.ones(60, dtype=torch.bool).scatter_(0, torch.tensor([5, 17]), False)
    if name != "alignment":
        omitted, masked = (value(ALL[name], x, backend, o) for o in ({"invalid": "omit"}, {"mask": mask}))
        alone = value(ALL[name], x[mask], backend, {})
        assert omitted == pytest.approx(alone, rel=1e-5, abs=1e-7)
        assert masked == pytest.approx(alone, rel=1e-5, abs=1e-7)


def value(function: Callable[..., Any], x: Tensor, backend: str, options: dict[str, Any]) -> float:
    found = function(x, backend=backend, **options)
    if isinstance(found, Tensor):
        return float(found.nanmean())
    return float(getattr(found, "mean", found))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows(name: str, n: int, backend: str) -> None:
    options = {"invalid": "omit"} if name == "centered_mean_cosine" else {}
    found = value(ALL[name], X[:n], backend, options)
    if n and name not in ("row_mean_cosines", "centered_mean_cosine"):
        assert math.isfinite(found)
    else:
        assert math.isnan(found)


def test_no_mean_to_have_a_cosine_to() -> None:
    found = fastaniso.cosine_to_mean(torch.tensor([[1.0, 2], [-1, -2]]))
    assert (math.isnan(found.mean), math.isnan(found.max), found.n) == (True, True, 2)
    assert np.isnan(found.quantile([0.1, 0.9])).all()


@pytest.mark.parametrize("name", ALL)
def test_blocks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 41, 6, generator=torch.Generator().manual_seed(5)).double()[:, 3:]
    mask = torch.rand(5, 38, generator=torch.Generator().manual_seed(6)) > 0.2
    whole = value(ALL[name], x, "cpu", {"mask": mask})
    monkeypatch.setattr(passes, "_NUMBERS", 6 * 7)
    monkeypatch.setattr(passes, "_ROWS_OF_A_PRODUCT", 7)
    assert value(ALL[name], x, "cpu", {"mask": mask}) == pytest.approx(whole, rel=1e-12)


@law
@given(float64_rows(), st.integers(0, 2**32), st.floats(1e-3, 1e3))
def test_laws(x: Tensor, seed: int, scale: float) -> None:
    """Order, rotation and one scale for all rows."""
    n, d = x.shape
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    turned = x[order] @ rotation(d, seed)
    rows = fastaniso.row_mean_cosines(x)
    torch.testing.assert_close(fastaniso.row_mean_cosines(turned * scale), rows[order], rtol=0, atol=1e-9)
    assert rows.mean().item() == pytest.approx(fastaniso.mean_cosine(x), abs=1e-12)
    a, b = fastaniso.cosine_to_mean(x), fastaniso.cosine_to_mean(turned * scale)
    np.testing.assert_allclose(b.cosines, a.cosines[order.numpy()], atol=1e-9)
    assert -1 - 1e-12 <= a.min <= a.mean <= a.max <= 1 + 1e-12
    centred, moved = (fastaniso.centered_mean_cosine(y) for y in (x, turned * scale + 3 * scale))
    assert centred == pytest.approx(moved, abs=1e-9)
    assert -1 / (n - 1) - 1e-12 <= centred <= 1
    small = x / torch.linalg.vector_norm(x, dim=1).mean()
    if n > d:  # else the vectors of no variance may be any
        score = fastaniso.partition_isotropy(small)
        assert fastaniso.partition_isotropy(small[order] @ rotation(d, seed)) == pytest.approx(score, rel=1e-5)
        assert 0 < score <= fastaniso.partition_isotropy(small, legacy="one-sided") <= 1
    pair = fastaniso.alignment(x, x.flip(0))
    assert fastaniso.alignment(turned, x.flip(0)[order] @ rotation(d, seed) * scale) == pytest.approx(pair, abs=1e-12)


@law
@given(float64_rows())
def test_each_row_twice(x: Tensor) -> None:
    """What averages over rows stays; a mean over pairs gains the pairs of a row and its copy."""
    n, twice = len(x), torch.cat((x, x))
    assert fastaniso.cosine_to_mean(twice).mean == pytest.approx(fastaniso.cosine_to_mean(x).mean, abs=1e-12)
    small = x / torch.linalg.vector_norm(x, dim=1).mean()
    if n > x.shape[1]:
        once = fastaniso.partition_isotropy(small)
        assert fastaniso.partition_isotropy(torch.cat((small, small))) == pytest.approx(once, rel=1e-6)
    rows, copies = fastaniso.row_mean_cosines(x), fastaniso.row_mean_cosines(twice)
    torch.testing.assert_close(copies[:n], (2 * (n - 1) * rows + 1) / (2 * n - 1), rtol=0, atol=1e-12)
    centred, doubled = fastaniso.centered_mean_cosine(x), fastaniso.centered_mean_cosine(twice)
    assert doubled == pytest.approx((2 * (n - 1) * centred + 1) / (2 * n - 1), abs=1e-9)


def test_torchmetrics_row_means_are_smaller_by_a_share_of_n() -> None:
    functional = pytest.importorskip("torchmetrics.functional")
    theirs = functional.pairwise_cosine_similarity(X, reduction="mean")
    ours = fastaniso.row_mean_cosines(X)
    torch.testing.assert_close(theirs.double(), ours * 59 / 60, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["npy", "shards"])
def test_an_opened_source_is_read_block_by_block(kind: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored gives what the same rows in memory give, in any number of reads."""
    x = torch.cat((X, 2 * X.flip(0) - 1))
    for part, rows in enumerate(x.split(120 if kind == "npy" else 50)):
        np.save(tmp_path / f"part-{part}.npy", rows.numpy())
    source = fastaniso.open_source(tmp_path)
    monkeypatch.setattr("fastaniso.sources.source._READ_BYTES", 24 * 7)
    monkeypatch.setattr(passes, "_NUMBERS", 6 * 5)
    monkeypatch.setattr(passes, "_READ_AT_ONCE", 6 * 11)
    monkeypatch.setattr(passes, "_ROWS_OF_A_PRODUCT", 9)
    assert fastaniso.centered_mean_cosine(source) == pytest.approx(fastaniso.centered_mean_cosine(x), abs=1e-9)
    assert fastaniso.partition_isotropy(source) == pytest.approx(fastaniso.partition_isotropy(x), rel=1e-6)
    assert fastaniso.cosine_to_mean(source).mean == pytest.approx(fastaniso.cosine_to_mean(x).mean, abs=1e-7)
    means = fastaniso.row_mean_cosines(source)
    assert means.shape == (120,)
    torch.testing.assert_close(means, fastaniso.row_mean_cosines(x), atol=1e-7, rtol=0)
    with pytest.raises(ValueError, match="mask: stored rows are all measured"):
        fastaniso.row_mean_cosines(source, mask=torch.ones(120, dtype=torch.bool))
    with pytest.raises(MemoryError, match="memory_limit: 100 bytes given"):
        fastaniso.partition_isotropy(source, memory_limit=100)
    np.save(tmp_path / "part-0.npy", np.zeros_like(x[: source.parts[0].count].numpy()))
    with pytest.raises(InvalidRowsError, match="row 0 is zero"):
        fastaniso.centered_mean_cosine(fastaniso.open_source(tmp_path))


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="legacy: expected None or 'one-sided', got 'rows'"):
        fastaniso.partition_isotropy(X, legacy="rows")
    for alpha in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="alpha: expected a number above 0"):
            fastaniso.alignment(X, X, alpha=alpha)
    with pytest.raises(ValueError, match=r"positives: expected the shape of hidden, \(60, 6\), got \(59, 6\)"):
        fastaniso.alignment(X, X[1:])
    with pytest.raises(ValueError, match="positives: expected it on cpu beside hidden, got meta"):
        fastaniso.alignment(X, X.to("meta"))
    with pytest.raises(MemoryError, match="memory_limit: 10 kB given"):
        fastaniso.partition_isotropy(X, memory_limit="10 kB")
    assert fastaniso.partition_isotropy(X, memory_limit="1 GB") == fastaniso.partition_isotropy(X)


def test_the_result_prints_and_goes_to_json() -> None:
    found = fastaniso.cosine_to_mean(X)
    assert "mean cosine to the mean" in str(found)
    assert "60 of 6 numbers" in str(found)
    plain = json.loads(found.to_json())
    assert plain["mean"] == found.mean
    assert "cosines" not in plain
    assert plain["conventions"]["std"] == "over n"
    with pytest.raises(ValueError, match="read-only"):
        found.cosines[0] = 0


MEMORY = """
import threading, numpy, torch, fastaniso
torch.set_num_threads(1)
rows = numpy.load({path!r}, mmap_mode="r")
small = torch.randn(700, 256)
for call in (fastaniso.partition_isotropy, fastaniso.centered_mean_cosine, fastaniso.row_mean_cosines):
    call(small)
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
peak, stop = [0], threading.Event()
def watch():
    while not stop.wait(0.002):
        peak[0] = max(peak[0], anonymous())
watcher = threading.Thread(target=watch)
before = anonymous()
watcher.start()
for call in (fastaniso.partition_isotropy, fastaniso.centered_mean_cosine, fastaniso.row_mean_cosines):
    call(rows)
stop.set()
watcher.join()
print((peak[0] - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_a_block(tmp_path: Any) -> None:
    n, d = 60_000, 256
    path = str(tmp_path / "rows.npy")
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, d))
    generator = np.random.default_rng(0)
    for start in range(0, n, 10_000):
        rows[start : start + 10_000] = generator.standard_normal((10_000, d), dtype=np.float32) * 0.1 + 0.05
    rows.flush()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEMORY.format(path=path)], capture_output=True, text=True, check=True
    )
    # The rows take 61 MB; a block of 512 rows in float64 takes 1 MB, and there are a few of them at once.
    assert 0 < int(done.stdout) < 24e6
