"""Benchmarks of ranks: what their rows say of the seconds of each rank, and that a rank that fails ends them."""

from __future__ import annotations

import pytest

from bench import ranks
from bench.group import cores, on_ranks
from bench.harness import OURS


def test_efficiency_is_work_over_time_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "cores", lambda: 2)
    case = ranks.Case("pairs", 1_000, 8, 1, (2, 4), uneven=True)
    alone, nothing = {"wall": [8.0], "cpu": [8.0]}, {"wall": [], "cpu": []}
    of_two, of_four, uneven = ({"wall": [wall], "cpu": [cpu]} for wall, cpu in ((5.0, 4.4), (5.0, 2.5), (6.0, 4.0)))
    found = [
        [alone, of_two, of_four, uneven],
        [nothing, of_two, of_four, uneven],
        *[[nothing, nothing, of_four, nothing]] * 2,
    ]
    rows = {row.contender: row for row in ranks._rows(case, list(ranks._shares(case)), found)}
    assert {name: row.share_of_limit for name, row in rows.items()} == {
        f"{OURS}, 1 rank": 1,
        f"{OURS}, 2 ranks": 8 / 2 / 5,
        f"{OURS}, 2 ranks, CPU time of each": pytest.approx(8 / 2 / 4.4),
        # Two cores can do the work of two ranks, however many there are.
        f"{OURS}, 4 ranks on 2 cores": 8 / 2 / 5,
        f"{OURS}, 4 ranks on 2 cores, CPU time of each": pytest.approx(8 / 4 / 2.5),
        f"{OURS}, 2 ranks, rows 1:3": pytest.approx(8 / 2 / 6),
        f"{OURS}, 2 ranks, rows 1:3, CPU time of each": 1,
    }
    assert ranks._shares(case)[f"{4} ranks on 2 cores"] == [250] * 4
    assert ranks._shares(case)["2 ranks, rows 1:3"] == [250, 750]
    # Of a rank's pairs in its CPU time, and of all pairs between barriers.
    assert rows[f"{OURS}, 2 ranks"].tflop_per_s == pytest.approx(1_000 * 999 * 8 / 5 / 1e12)


def test_a_rank_that_fails_ends_the_group() -> None:
    assert cores() >= 1
    with pytest.raises(RuntimeError, match=r"bench.ranks: a rank failed"):
        on_ranks(ranks.measure, 2, asked=[["pairs", 60, 4, 1, [[20, 30]]]])
