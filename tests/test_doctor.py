"""The doctor proves what works, and is not fooled by a kernel that gives wrong sums."""

from __future__ import annotations

import json
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


def test_unavailable_says_why() -> None:
    (check,) = [check for check in doctor.diagnose().checks if check.backend == "triton"]
    if torch.cuda.is_available():
        assert check.status == "ok"
    else:
        assert (check.status, check.detail) == ("unavailable", "torch finds no GPU")


def test_wrong_sums_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ops.gram

    def wrong(rows: Any, **options: Any) -> Any:
        state = right(rows, **options)
        if options["backend"] == "cpu":
            state.sums[2, 5] += 0.1
        return state

    monkeypatch.setattr(doctor.ops, "gram", wrong)
    diagnosis = doctor.diagnose()
    assert diagnosis.failed
    assert {check.status for check in diagnosis.checks if check.backend == "cpu"} == {"failed"}


def test_an_error_in_a_kernel_is_a_failure_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(doctor.ops, "moments", broken)
    check = doctor.diagnose().checks[0]
    assert check.status == "failed"
    assert "no such instruction" in check.detail


def test_prints_and_json() -> None:
    diagnosis = doctor.diagnose()
    assert json.loads(diagnosis.to_json()) == diagnosis.to_dict()
    text = str(diagnosis)
    assert "torch" in text
    assert "largest error" in text
