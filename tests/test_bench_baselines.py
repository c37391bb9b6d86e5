"""What the benchmarks compare to gives the same numbers, and the benchmarks' own tools tell the truth."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import harness, inputs, memory, moments
from bench.__main__ import main
from bench.baselines import GRAM, MOMENTS, Contender, error_of_matrix, error_of_mean
from bench.harness import OURS, Row, Timing
from bench.report import write_report
from bench.targets import judge

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


def test_exact_values_are_exact() -> None:
    rows = inputs.make(50, 7, "float64")
    unit = torch.nn.functional.normalize(rows)
    cosines = unit @ unit.T
    assert inputs.exact_mean_cosine(rows) == pytest.approx((cosines.sum() - cosines.trace()).item() / (50 * 49))
    torch.testing.assert_close(inputs.exact_second_moment(rows, unit=False), rows.T @ rows)
    torch.testing.assert_close(inputs.exact_second_moment(rows, unit=True), unit.T @ unit)


def test_inputs_are_the_same_every_time_and_of_the_kind_asked_for() -> None:
    assert torch.equal(inputs.make(40_000, 6, "float32"), inputs.make(40_000, 6, "float32"))
    assert abs(inputs.exact_mean_cosine(inputs.make(40_000, 64, "float32", "isotropic"))) < 1e-3
    assert 0.2 < inputs.exact_mean_cosine(inputs.make(40_000, 64, "float32", "drifted")) < 0.8
    with pytest.raises(ValueError, match="isotropic, drifted"):
        inputs.make(2, 2, "float32", "round")


def test_percentiles_are_calls_that_happened() -> None:
    assert Timing.of([5, 1, 4, 2, 3, 6]) == Timing(2, 3, 5)
    assert Timing.of([7.0]) == Timing(7, 7, 7)


def test_interleaved_calls_take_turns() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    timings = harness.interleave(calls, rounds=(3, 3), settle=0)
    assert set(timings) == {"a", "b"}
    turns = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert turns == list("ab") * 4  # the warm-up and three rounds


def test_rows_are_appended_and_read_back(tmp_path: Path) -> None:
    first = Row(
        "moments", OURS, "cpu", "avx2", 10, 3, "float32", 1, p50_ms=1.5, error=1e-12, machine="Some CPU, 2 cores"
    )
    second = Row("gram", "torch_mm", "torch", "avx2", 10, 3, "float32", None, machine="Some CPU, 2 cores")
    (path,) = harness.append([first], tmp_path / "results")
    assert path.name == "some-cpu-2-cores.csv"
    harness.append([second], tmp_path / "results")
    assert harness.read(path) == [first, second]


def test_a_file_of_other_columns_is_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "some-cpu.csv"
    path.write_text("op,speed\n")
    with pytest.raises(ValueError, match="expected the columns op, contender"):
        harness.append([Row("moments", OURS, "cpu", "avx2", 1, 1, "float32", 1, machine="Some CPU")], tmp_path)
    assert path.read_text() == "op,speed\n"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured on Linux only")
def test_peak_memory_is_that_of_one_call() -> None:
    assert 31 < memory.peak_of(lambda: torch.ones(8, 2**20).sum()) < 36
    assert memory.peak_of(lambda: None) < 1


def _moments_row(dtype: str, share: float) -> Row:
    n, d = moments.LARGE
    return Row("moments", OURS, "cpu", "avx512", n, d, dtype, 2, "drifted", share_of_limit=share)


def test_targets_are_judged_on_what_was_measured() -> None:
    verdicts = {v.target: v for v in judge([_moments_row("float32", 0.951), _moments_row("bfloat16", 0.849)])}
    share = "avx512: moments, share of the read bandwidth, "
    assert verdicts[share + "float32"].verdict == "reached"
    assert (verdicts[share + "bfloat16"].wanted, verdicts[share + "bfloat16"].verdict) == ("≥ 0.85", "missed")
    assert verdicts[share + "float16"].verdict == "not measured"


def test_the_report_says_what_has_not_run(tmp_path: Path) -> None:
    rows = [_moments_row("float32", 0.96)]
    write_report(tmp_path / "benchmarks.md", rows, judge(rows), tmp_path)
    assert "Not yet run on a GPU" in (tmp_path / "benchmarks.md").read_text()
    on_gpu = Row("gram", OURS, "triton", "", 10**6, 768, "bfloat16", None, share_of_limit=0.7, machine="Some GPU")
    harness.append([on_gpu], tmp_path)
    write_report(tmp_path / "benchmarks.md", rows, judge(rows), tmp_path)
    assert "Some GPU" in (tmp_path / "benchmarks.md").read_text()


def test_command_line_appends_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["small", "--quick", "--threads", "1", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.csv")
    assert {row.op for row in harness.read(path)} == {"small"}
    assert "targets" in capsys.readouterr().out


def test_a_report_of_quick_figures_is_refused(tmp_path: Path) -> None:
    assert main(["all", "--quick", "--report", str(tmp_path / "benchmarks.md")]) == 2
    assert not list(tmp_path.iterdir())
