"""The benchmarks' own tools tell the truth: float64 values, timing, rows, memory, targets, report, picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import pytest
import torch

from bench import harness, inputs, limits, memory, moments, neighbors, pairs, picture, scaling
from bench.__main__ import main
from bench.baselines import error_of_histogram
from bench.harness import OURS, Row, Timing
from bench.machine import use_threads
from bench.options import Options
from bench.report import write_report
from bench.targets import judge, judge_gpu
from bench.visits import Visit


def test_exact_values_are_exact() -> None:
    rows = inputs.make(50, 7, "float64")
    unit = torch.nn.functional.normalize(rows)
    cosines = unit @ unit.T
    assert inputs.exact_mean_cosine(rows) == pytest.approx((cosines.sum() - cosines.trace()).item() / (50 * 49))
    torch.testing.assert_close(inputs.exact_second_moment(rows, unit=False), rows.T @ rows)
    torch.testing.assert_close(inputs.exact_second_moment(rows, unit=True), unit.T @ unit)
    upper = cosines[torch.ones_like(cosines).triu(1).bool()]
    assert torch.equal(inputs.exact_histogram(rows, 16), torch.histc(upper, 16, -1, 1).long())
    nearest = cosines.fill_diagonal_(-2).sort(1, descending=True).values[:, :3]
    torch.testing.assert_close(inputs.exact_nearest(rows, 3), nearest)


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


def test_calls_that_are_timed_seldom_miss_two_turns_of_three() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    harness.interleave(calls, rounds=(4, 4), settle=0, seldom={"b"})
    turns = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert turns == list("abab") + list("ab")  # the warm-up, the first round, three of a's in a row, the fourth


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


def _pairs_row(contender: str, size: tuple[int, int], threads: int, share: float) -> Row:
    return Row("pairs", contender, "cpu", "avx512", *size, "float32", threads, "drifted", share_of_limit=share)


def test_targets_of_pairs_take_the_worst_size_and_number_of_threads() -> None:
    shares = {(pairs.MAIN, 1): 0.99, (pairs.MAIN, 2): 0.98, (pairs.LARGE, 1): 0.96, (pairs.LARGE, 2): 0.99}
    rows = [_pairs_row(OURS, size, threads, share) for (size, threads), share in shares.items()]
    verdicts = {v.target: v for v in judge(rows)}
    name = "avx512: pairs, histogram, share of half the sgemm time, d = 768, one and two threads"
    assert (verdicts[name].measured, verdicts[name].verdict) == ("0.96", "missed")
    assert verdicts[name.replace("histogram", "everything")].verdict == "not measured"


def test_memory_of_pairs_and_neighbors_is_judged_at_two_sizes() -> None:
    def row(op: str, n: int, mib: float) -> Row:
        return Row(op, OURS, "cpu", "avx512", n, 768, "float32", 2, "drifted", peak_mib=mib)

    allowed = 26e6 / 2**20
    for op, result in (("pairs", 0), ("neighbors", 12 * 10 / 2**20)):
        one, two = (row(op, n, allowed + n * result - 0.1) for n in (10_000, 40_000))
        (memory_of,) = [v for v in judge([one, two]) if v.target.startswith(f"avx512: {op}, MiB")]
        assert memory_of.verdict == "reached"
        (memory_of,) = [
            v for v in judge([one, row(op, 40_000, two.peak_mib + 0.2)]) if "MiB" in v.target and v.measured
        ]
        assert memory_of.verdict == "missed"
        assert not any(v.measured for v in judge([one]))


def test_targets_of_the_gpu_name_the_bound_that_is_not_to_be_passed() -> None:
    row = Row(
        "pairs", f"{OURS}_everything", "triton", "", 10**6, 768, "bfloat16", None, p50_ms=1800, machine="Some GPU"
    )
    (verdict,) = [v for v in judge_gpu([row]) if v.measured]
    assert (verdict.wanted, verdict.measured, verdict.verdict) == ("≤ 1900", "1800", "reached")


def test_the_limit_of_all_pairs_grows_with_their_number() -> None:
    timings = {"slow": Timing(3, 3, 3), "fast": Timing(1, 2, 3)}
    assert limits.half_of_square(timings, 1000) == 1
    assert limits.half_of_square(timings, 2 * limits.PRODUCT_ROWS) == 4


def test_products_of_the_limit_are_right() -> None:
    rows = inputs.make(60, 7, "float32")
    for call in limits.row_products(rows).values():
        torch.testing.assert_close(torch.as_tensor(call()), rows @ rows.T)


def test_share_of_pairs_in_a_wrong_bin() -> None:
    assert error_of_histogram(torch.tensor([4, 3, 3]), torch.tensor([5, 3, 2])) == 0.2
    assert error_of_histogram(torch.tensor([5, 3, 2]), torch.tensor([5, 3, 2])) == 0


def test_contenders_are_timed_on_as_many_rows_as_they_are_worth() -> None:
    def names(visit: Visit, n: int, only_ours: bool = False) -> set[str]:
        return {c.name for c in visit.of(n, Options((1,), only_ours=only_ours))}

    assert {"scipy_pdist", "torch_chunks"} <= names(pairs.VISIT, 2_000)
    assert "scipy_pdist" not in names(pairs.VISIT, 10_000)
    assert names(pairs.VISIT, 20_000) == names(pairs.VISIT, 10, only_ours=True) == {OURS, pairs.EVERYTHING}
    assert names(neighbors.DIMENSION, 20_000) == {OURS, "skdim_two_nn"}


def test_the_picture_is_of_the_newest_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    def run(ms: float) -> list[Row]:
        return [
            Row("scaling", name, "cpu", "avx512", n, 384, "float32", 2, p50_ms=ms * n, peak_mib=1.0)
            for n in (300, 3000)
            for name in (OURS, "torch_chunks")
        ]

    rows = [*run(1), Row("gram", OURS, "cpu", "avx512", 10, 3, "float32", 1), *run(2)]
    assert picture.newest(rows) == rows[-4:]
    picture.draw(picture.newest(rows), tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="op scaling"):
        picture.draw([], tmp_path / "nothing.png")


def test_the_report_says_what_has_not_run(tmp_path: Path) -> None:
    rows = [_moments_row("float32", 0.96)]
    write_report(tmp_path / "benchmarks.md", rows, judge(rows), tmp_path)
    assert "Not yet run on a GPU" in (tmp_path / "benchmarks.md").read_text()
    on_gpu = Row("gram", OURS, "triton", "", 10**6, 768, "bfloat16", None, share_of_limit=0.7, machine="Some GPU")
    harness.append([on_gpu], tmp_path)
    write_report(tmp_path / "benchmarks.md", rows, judge(rows), tmp_path)
    assert "Some GPU" in (tmp_path / "benchmarks.md").read_text()


def test_the_report_is_of_the_last_commit_of_each_op(tmp_path: Path) -> None:
    old = [dataclasses.replace(_moments_row("float32", share), commit="old") for share in (0.5, 0.6)]
    new = [dataclasses.replace(_moments_row("float32", share), commit="new") for share in (0.7, 0.8)]
    other = Row("gram", OURS, "cpu", "avx512", 10, 3, "float32", 1, commit="old")
    assert harness.latest([*old, other, *new]) == [other, new[1]]
    harness.append([*old, other, *new], tmp_path)
    report = tmp_path / "benchmarks.md"
    assert main(["report", "--out", str(tmp_path), "--report", str(report)]) == 0
    assert "| 0.80 | missed |" in report.read_text()
    assert "commit new" in report.read_text()
    assert "commit old" in report.read_text()


def test_the_report_shows_the_picture(tmp_path: Path) -> None:
    rows = [_moments_row("float32", 0.96)]
    write_report(
        tmp_path / "docs" / "benchmarks.md", rows, judge(rows), tmp_path, tmp_path / "docs" / "images" / "a.png"
    )
    assert "(images/a.png)" in (tmp_path / "docs" / "benchmarks.md").read_text()


@pytest.mark.parametrize("op", [pairs, neighbors, scaling], ids=["pairs", "neighbors", "scaling"])
def test_benchmarks_over_pairs_run(op: ModuleType) -> None:
    before = torch.get_num_threads()
    try:
        rows: list[Row] = op.run(Options((1,), quick=True))
    finally:
        use_threads(before)
    own = [row for row in rows if row.op == op.__name__.removeprefix("bench.")]
    assert {OURS, "torch_chunks_topk" if op is neighbors else "torch_chunks"} <= {row.contender for row in own}
    assert all(row.p50_ms for row in rows)
    if op is not scaling:
        assert all(row.error is not None and row.error < 1e-3 and row.share_of_limit for row in own)
    if memory.MEASURABLE:
        assert all(row.peak_mib is not None for row in own if row.dtype == "float32")


def test_command_line_appends_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["small", "--quick", "--threads", "1", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.csv")
    assert {row.op for row in harness.read(path)} == {"small"}
    assert "targets" in capsys.readouterr().out


def test_a_report_or_picture_of_quick_figures_is_refused(tmp_path: Path) -> None:
    assert main(["all", "--quick", "--report", str(tmp_path / "benchmarks.md")]) == 2
    assert main(["scaling", "--quick", "--plot", str(tmp_path / "scaling.png")]) == 2
    assert main(["report"]) == 2
    assert not list(tmp_path.iterdir())
