"""The doctor proves what works, and is not fooled by a kernel that gives wrong sums."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fastaniso import doctor
from fastaniso.ops import cpu
from fastaniso.ops import dispatch as ops


def test_every_instruction_set_is_proven() -> None:
    diagnosis = doctor.diagnose()
    proven = [check for check in diagnosis.checks if check.backend == "cpu"]
    assert [check.status for check in proven] == ["ok"] * len(cpu.available_isas())
    assert all(check.error is not None and check.error < 1e-5 for check in proven)
    assert diagnosis.usable
    assert not diagnosis.failed
    assert cpu.isa() in diagnosis.machine["instruction set"]
    assert diagnosis.machine["threads"] == torch.get_num_threads()


def test_unavailable_says_why() -> None:
    (check,) = [check for check in doctor.diagnose().checks if check.backend == "triton"]
    if torch.cuda.is_available():
        assert check.status == "ok"
    else:
        assert (check.status, check.detail) == ("unavailable", "torch finds no GPU")


def _move_a_count(state: Any) -> None:
    state.histogram[40] -= 1
    state.histogram[60] += 1


def _overlook(state: Any) -> None:
    state.cosines[11, 1:-1] = state.cosines[11, 2:].clone()
    state.indices[11, 1:-1] = state.indices[11, 2:].clone()


def _swap(state: Any) -> None:
    state.indices[12, :2] = state.indices[12, :2].flip(0)


# What a kernel may get wrong: the op, and what is done to its state.
FAULTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a_sum": ("gram", lambda state: state.sums[2, 5].add_(0.1)),
    "a_mean": ("pairs", lambda state: state.moments[0].mul_(1.001)),
    "a_fourth_moment": ("pairs", lambda state: state.moments[3].mul_(1.2)),
    "an_exponential": ("pairs", lambda state: state.exponentials.mul_(1.0005)),
    "a_pair_too_many": ("pairs", lambda state: state.counts[0].add_(1)),
    "a_count_in_another_bin": ("pairs", _move_a_count),
    "a_share": ("pairs", lambda state: state.above[0].add_(30)),
    "an_extreme": ("pairs", lambda state: state.extrema[1].mul_(0.999)),
    "the_place_of_an_extreme": ("pairs", lambda state: state.extrema_at[0].sub_(1)),
    "a_cosine": ("neighbors", lambda state: state.cosines[11, 0].add_(1e-4)),
    "a_better_neighbor": ("neighbors", _overlook),
    "the_order_of_neighbors": ("neighbors", _swap),
    "a_neighbor_of_nobody": ("neighbors", lambda state: state.indices[3].fill_(2)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_result_is_a_failure(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    op, do_wrong = FAULTS[fault]
    right = getattr(ops, op)

    def wrong(rows: Any, *others: Any, **options: Any) -> Any:
        state = right(rows, *others, **options)
        if options["backend"] == "cpu":
            do_wrong(state)
        return state

    monkeypatch.setattr(cpu, "available_isas", lambda: [cpu.isa()])
    monkeypatch.setattr(ops, op, wrong)
    diagnosis = doctor.diagnose()
    assert diagnosis.failed
    assert {check.backend for check in diagnosis.checks if check.status == "failed"} == {"cpu"}


def test_one_side_of_mutual_neighbors_is_proven_too(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ops.mutual_neighbors

    def wrong(*rows: Any, **options: Any) -> Any:
        there, back = right(*rows, **options)
        back.cosines[20, 2] -= 1e-3
        return there, back

    monkeypatch.setattr(ops, "mutual_neighbors", wrong)
    assert {check.status for check in doctor.diagnose().checks if check.backend != "triton"} == {"failed"}


def test_an_error_in_a_kernel_is_a_failure_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(ops, "moments", broken)
    check = doctor.diagnose().checks[0]
    assert check.status == "failed"
    assert "no such instruction" in check.detail


def test_prints_and_json() -> None:
    diagnosis = doctor.diagnose()
    assert json.loads(diagnosis.to_json()) == diagnosis.to_dict()
    text = str(diagnosis)
    assert "torch" in text
    assert "largest error" in text
