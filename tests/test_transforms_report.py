"""The report of what a transform changed, and the page that explains transforms."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

import fastaniso
from fastaniso.transforms import AllButTheTop, Center, DropDimensions, Standardize, Whiten, report

PAGE = Path(__file__).parent.parent / "docs" / "transforms.md"

pytestmark = pytest.mark.filterwarnings("ignore:spectral scores")


def drifted(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, 12, generator=torch.Generator().manual_seed(0)) + 3


@pytest.mark.parametrize("transform", [Center(), Whiten(n_components=5), make_pipeline(Standardize(), AllButTheTop())])
def test_the_report_is_describe_before_and_after(transform: object) -> None:
    x = drifted(40, 50)
    mask = torch.rand(40, 50, generator=torch.Generator().manual_seed(1)) > 0.3
    x[~mask] = torch.nan
    transform.fit(x[mask])
    found = report(transform, x, mask=mask)
    before, after = fastaniso.describe(x, mask=mask), fastaniso.describe(transform.transform(x[mask]))
    assert found.before.to_dict() == before.to_dict()
    assert found.after.mean_cosine == pytest.approx(after.mean_cosine, abs=1e-7)
    assert found.after.n == before.n == int(mask.sum())
    assert found.after.cosine_std == pytest.approx(after.cosine_std, rel=1e-5)
    assert json.loads(json.dumps(found.to_dict()["after"]["mean_cosine"])) == found.after.mean_cosine


def test_the_table_sets_both_side_by_side() -> None:
    x = drifted(500)
    shown = str(report(Center().fit(x), x))
    lines = shown.splitlines()
    assert lines[:2] == ["Center()", lines[1]]
    assert lines[1].split() == ["before", "after"]
    assert len({len(line) for line in lines[1:]}) == 1
    (cosine,) = (line for line in lines if line.startswith("mean cosine"))
    assert float(cosine.split()[2]) > 0.8 > 0.01 > abs(float(cosine.split()[3]))
    assert "IsoScore" in shown
    assert "IsoScore" not in str(report(Center().fit(x), x, gram=False))


def test_rows_that_become_zero_are_counted() -> None:
    x = torch.eye(4).repeat(5, 1).numpy()
    drop = DropDimensions(dimensions=[0]).fit(x)
    found = report(drop, x)
    assert (found.before.n, found.before.dropped.zero) == (20, 0)
    assert (found.after.n, found.after.dim, found.after.dropped.zero) == (15, 3, 5)


def test_rows_left_out_before_are_left_out_after() -> None:
    x = drifted(30).numpy()
    x[3], x[4, 1] = 0, np.nan
    center = Center().fit(x[5:])
    with pytest.raises(fastaniso.InvalidRowsError):
        report(center, x)
    found = report(center, x, invalid="omit")
    assert (found.before.n, found.before.dropped.nonfinite, found.after.n) == (28, 1, 29)
    with pytest.raises(ValueError, match="no row is left to transform"):
        report(center, x[3:4], invalid="omit")


def test_the_examples_of_the_page_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, PAGE.name, str(PAGE), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    failures: list[str] = []
    runner.run(examples, out=failures.append)
    assert len(examples.examples) > 10
    assert not failures, "".join(failures)
