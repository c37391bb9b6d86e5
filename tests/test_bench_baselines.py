"""What the benchmarks compare to gives the same numbers as fastaniso."""

from __future__ import annotations

import pytest
import torch

from bench import inputs
from bench.baselines import (
    ATTENTION,
    BINS,
    CAUSAL_ATTENTION,
    GRAM,
    MOMENTS,
    NEIGHBORS,
    PAIRS,
    TWO_NN,
    Contender,
    K,
    error_of_histogram,
    error_of_matrix,
    error_of_mean,
    error_of_neighbors,
)
from bench.baselines.attention import HEADS, NAMES, error_of_attention, exact_attention
from bench.harness import OURS

N, D = 400, 24


def _cases(contenders: tuple[Contender, ...]) -> list[object]:
    return [pytest.param(c, dtype, id=f"{c.name}-{dtype}") for c in contenders for dtype in c.dtypes]


def _skip_if_missing(contender: Contender) -> None:
    if reason := contender.missing():
        pytest.skip(reason)
    if contender.name == "compiled_normalize_sum":
        pytest.importorskip("torch._inductor")


# F.normalize of 16-bit rows rounds the unit rows to 8 or 11 bits, then their sum: that is what it costs.
MEAN_TOLERANCE = {"float32": 2e-6, "bfloat16": 2e-2, "float16": 2e-3}
# Rounded norms and unit rows in float32, 6e-8, averaged over few rows.
OUR_TOLERANCE = 1e-7
# float32 sums of 400 products.
MATRIX_TOLERANCE = 5e-6


@pytest.mark.parametrize("kind", inputs.KINDS)
@pytest.mark.parametrize(("contender", "dtype"), _cases(MOMENTS))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile on its own modules
def test_mean_cosine(contender: Contender, dtype: str, kind: str) -> None:
    _skip_if_missing(contender)
    rows = inputs.make(N, D, dtype, kind)
    exact = inputs.exact_mean_cosine(rows)
    tolerance = OUR_TOLERANCE if contender.name == OURS else MEAN_TOLERANCE[dtype]
    assert error_of_mean(contender.call(rows), exact, kind) < tolerance


@pytest.mark.parametrize(("contender", "dtype"), _cases(GRAM))
def test_second_moment(contender: Contender, dtype: str) -> None:
    _skip_if_missing(contender)
    rows = inputs.make(N, D, dtype)
    exact = inputs.exact_second_moment(rows, unit=contender.normalised)
    assert error_of_matrix(contender.call(rows), exact) < MATRIX_TOLERANCE


# A cosine of 24 products and two norms is off by 2e-6 at most, and bins are 1e-3 wide; the rows' cosines with
# themselves, if they were counted, would be 5e-3 of the pairs.
HISTOGRAM_TOLERANCE = 28 * 2**-24 * BINS / 2


@pytest.mark.parametrize("kind", inputs.KINDS)
@pytest.mark.parametrize(("contender", "dtype"), _cases(PAIRS))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of other packages' own modules
def test_histogram(
    contender: Contender,
    dtype: str,
    kind: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _skip_if_missing(contender)
    # Read when it is first imported: what KeOps compiles stays out of the user's home.
    monkeypatch.setenv("KEOPS_CACHE_FOLDER", str(tmp_path_factory.getbasetemp() / "keops"))
    rows = inputs.make(N, D, dtype, kind)
    counts = contender.call(rows)
    assert int(counts.sum()) == N * (N - 1) // 2
    assert error_of_histogram(counts, inputs.exact_histogram(rows, BINS)) < HISTOGRAM_TOLERANCE


# The same rounding of a cosine.
COSINE_TOLERANCE = 28 * 2**-24


@pytest.mark.parametrize("kind", inputs.KINDS)
@pytest.mark.parametrize(("contender", "dtype"), _cases(NEIGHBORS))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nearest(contender: Contender, dtype: str, kind: str) -> None:
    _skip_if_missing(contender)
    rows = inputs.make(N, D, dtype, kind)
    given = contender.call(rows)
    assert error_of_neighbors(given, inputs.exact_nearest(rows, K)) < COSINE_TOLERANCE
    units = torch.nn.functional.normalize(rows.double())
    indices = torch.as_tensor(given[1])
    assert (indices != torch.arange(N)[:, None]).all()
    assert error_of_neighbors(given, (units[:, None] * units[indices]).sum(2)) < COSINE_TOLERANCE


# Sums of 51 float32 weights, and logarithms of them. Half the digits of a variance are lost to squares about zero.
ATTENTION_TOLERANCE = 2e-5


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("contender", "dtype"), _cases(ATTENTION))
def test_attention(contender: Contender, dtype: str, causal: bool) -> None:
    # An odd number of keys, all of which are seen, has one median: torch's is the lower of two.
    rows = inputs.make(HEADS * 51, D, dtype, "isotropic")
    call = next(c.call for c in (CAUSAL_ATTENTION if causal else ATTENTION) if c.name == contender.name)
    exact = exact_attention(rows, causal=causal)
    ours = call(rows)
    medians = NAMES.index("row_median")
    if causal and contender.name != OURS:
        assert (ours[medians] < exact[medians]).all()
        ours[medians] = exact[medians]
    torch.testing.assert_close(ours, exact, rtol=ATTENTION_TOLERANCE, atol=ATTENTION_TOLERANCE)
    assert error_of_attention(ours, exact) < ATTENTION_TOLERANCE


@pytest.mark.parametrize("contender", [pytest.param(c, id=c.name) for c in TWO_NN])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_intrinsic_dimension(contender: Contender) -> None:
    _skip_if_missing(contender)
    rows = inputs.make(N, D, "float32", "isotropic")
    # Distances of float32 cosines: their logarithm's ratios are off by 1e-6 of the 0.1 that they are.
    assert contender.call(rows) == pytest.approx(inputs.exact_two_nn(rows), rel=1e-5)
