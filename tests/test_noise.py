"""Standard errors from scatters: against the spread of many draws, of rows one by one and of whole sequences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import fastaniso
from fastaniso.ops import dispatch as ops
from fastaniso.rows import as_rows
from fastaniso.state import Gram
from fastaniso.statistics import cosine, drift
from fastaniso.statistics.noise import StandardErrors, standard_errors

DIM, DRAWS = 12, 300
NAMES = StandardErrors._fields


def gram(rows: Tensor) -> Gram:
    return ops.gram(as_rows(rows), raw=True, unit=True, backend="cpu")


def values(state: Gram) -> list[float]:
    """What the errors are of, in their order."""
    drifts, norms = drift.drift(state), drift.norms(state)
    return [float(cosine.mean(state)), *(float(drifts[i]) for i in (0, 2, 1)), float(norms[0])]


def sequences(generator: torch.Generator, *, count: int, length: int, alike: float, mean: float) -> Tensor:
    """Rows with a common mean; those of a sequence share a part of their deviation, ``alike`` of its variance."""
    spread = torch.linspace(0.3, 1.5, DIM)
    own = torch.randn(count, length, DIM, generator=generator)
    shared = torch.randn(count, 1, DIM, generator=generator)
    rows = mean + spread * (own * (1 - alike) ** 0.5 + shared * alike**0.5)
    return rows.reshape(-1, DIM)


@pytest.mark.parametrize("mean", [0.8, 0.2])
def test_independent_rows_spread_as_told(mean: float) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [gram(sequences(generator, count=200, length=1, alike=0, mean=mean)) for _ in range(DRAWS)]
    spread = np.std([values(state) for state in drawn], axis=0, ddof=1)
    told = np.mean([[float(error[0]) for error in standard_errors(state)] for state in drawn], axis=0)
    for name, seen, said in zip(NAMES, spread, told, strict=True):
        if name == "relative_drift":
            assert said > seen  # a bound: the parts' relative errors added
        else:
            # the std of 300 draws errs by 4 %, the formula is of first order in 1/200
            assert said == pytest.approx(seen, rel=0.15), name


@pytest.mark.parametrize("alike", [0.1, 0.5])
def test_sequences_spread_as_told(alike: float) -> None:
    generator = torch.Generator().manual_seed(1)
    length = 10
    states, told = [], []
    for _ in range(DRAWS):
        rows = sequences(generator, count=60, length=length, alike=alike, mean=0.5)
        grouped = fastaniso.group_cosine(rows, torch.arange(60).repeat_interleave(length))
        excess = grouped.pooled_within - grouped.pooled_between
        states.append(gram(rows))
        errors = standard_errors(states[-1], size=length, largest=2 * length, excess=excess)
        told.append([error.tolist() for error in errors])
    spread = np.std([values(state) for state in states], axis=0, ddof=1)
    for name, seen, (of_rows, likely, most) in zip(NAMES, spread, np.mean(told, axis=0), strict=True):
        assert of_rows < likely < most, name
        assert seen < most, name
        # the same share is alike in every direction: what is likely is so, to the 4 % that 300 draws err and the
        # difference between rows, of which the share is, and unit rows, of which it is told
        if name == "relative_drift":
            assert seen < likely
        else:
            assert likely == pytest.approx(seen, rel=0.2), name


def test_no_excess_leaves_rows_as_independent() -> None:
    state = gram(torch.randn(50, DIM, generator=torch.Generator().manual_seed(2)) + 1)
    errors = standard_errors(state, size=5, largest=10, excess=0.0)
    assert len(set(errors.mean_cosine.tolist())) == 1
    assert len(set(errors.unit_drift.tolist())) == 1
    of_rows, likely, most = errors.mean_norm.tolist()
    assert likely == of_rows
    assert most == pytest.approx(10**0.5 * of_rows)


@pytest.mark.parametrize(("rows", "options"), [(1, {}), (5, {"size": np.nan}), (5, {"excess": np.nan})])
def test_what_is_not_known_is_nan(rows: int, options: dict[str, float]) -> None:
    state = gram(torch.randn(rows, DIM, generator=torch.Generator().manual_seed(3)))
    errors = standard_errors(state, **{"size": 2.0, "largest": 2.0, "excess": 0.1, **options})
    assert torch.isnan(errors.mean_cosine[1])
