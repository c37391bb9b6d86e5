"""Accumulator: batches make the whole, options are held to, states travel."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode

import fastaniso
from fastaniso import Accumulator, CorruptStateError, Gram, InvalidRowsError, Moments, StateMismatchError

X = torch.randn(60, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
IDS = torch.arange(60) % 3
OPTIONS: list[dict[str, Any]] = [
    {},
    {"gram": True},
    {"gram": "unit"},
    {"gram": "raw"},
    {"groups": 3},
    {"gram": True, "groups": 3},
]


@pytest.fixture(params=OPTIONS, ids=str)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu":
        pytest.importorskip("fastaniso._cpu")
    return str(request.param)


def _ids(options: dict[str, Any], rows: slice = slice(None)) -> torch.Tensor | None:
    return IDS[rows] if "groups" in options else None


def _numbers(accumulator: Accumulator) -> dict[str, Any]:
    return {name: value for name, value in accumulator.result().to_dict().items() if name not in ("top_dimensions",)}


def _assert_same(a: Accumulator, b: Accumulator) -> None:
    ours, theirs = _numbers(a), _numbers(b)
    for name, value in ours.items():
        assert theirs[name] == (pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value), name


def test_batches_make_the_whole(options: dict[str, Any], backend: str) -> None:
    whole = Accumulator(**options, backend=backend).update(X, groups=_ids(options))
    batches = Accumulator(**options, backend=backend)
    for start in range(0, 60, 25):
        rows = slice(start, start + 25)
        batches.update(X[rows].view(-1, 5, 5), groups=None if _ids(options) is None else IDS[rows].view(-1, 5))
    description = batches.result()
    assert description.n == 60
    assert description.mean_cosine == pytest.approx(whole.result().mean_cosine, abs=1e-12)
    assert description.norms.std == pytest.approx(whole.result().norms.std, rel=1e-6)
    for name in ("cosine_std", "isoscore", "within_groups", "between_groups"):
        expected = getattr(whole.result(), name)
        assert getattr(description, name) == (None if expected is None else pytest.approx(expected, abs=1e-9))


def test_masks_and_empty_batches() -> None:
    keep = torch.arange(60) % 4 > 0
    accumulator = Accumulator().update(X[:0]).update(X[:30], keep[:30]).update(X[30:], keep[30:]).update(X[:0])
    description = accumulator.result()
    assert (description.n, description.dropped.masked) == (45, 15)
    assert description.mean_cosine == pytest.approx(fastaniso.mean_cosine(X[keep]), abs=1e-12)


def test_mixed_dtypes_are_recorded() -> None:
    accumulator = Accumulator(backend="reference").update(X).update(X.float()).update(X.bfloat16())
    assert accumulator.result().provenance == (
        "bfloat16 rows, reference kernel",
        "float32 rows, reference kernel",
        "float64 rows, reference kernel",
    )


def test_merge_and_plus(options: dict[str, Any]) -> None:
    def part(rows: slice) -> Accumulator:
        return Accumulator(**options).update(X[rows], groups=_ids(options, rows))

    whole = part(slice(None))
    a, b, c = part(slice(0, 10)), part(slice(10, 11)), part(slice(11, 60))
    assert (a + b + c).result().n == 60
    assert a.result().n == 10
    assert a.merge(b, c, Accumulator(**options)) is a
    assert a.result().mean_cosine == pytest.approx(whole.result().mean_cosine, abs=1e-12)
    assert (Accumulator(**options) + b).result().n == 1
    with pytest.raises(TypeError):
        a + 1  # type: ignore[operator]


def test_accumulators_of_other_options_do_not_merge() -> None:
    with pytest.raises(StateMismatchError, match=r"gram=False, groups=None and gram=True, groups=None do not merge"):
        Accumulator().update(X).merge(Accumulator(gram=True).update(X))
    with pytest.raises(StateMismatchError, match="groups=3 and gram=False, groups=4"):
        Accumulator(groups=3).merge(Accumulator(groups=4))
    with pytest.raises(StateMismatchError, match="dimension 5 and 4"):
        Accumulator().update(X).merge(Accumulator().update(X[:, :4]))


def test_rows_of_a_source_count_once(options: dict[str, Any]) -> None:
    accumulator = Accumulator(**options)
    accumulator.update(X[:20], groups=_ids(options, slice(0, 20)), source="a.npy", start=0)
    accumulator.update(X[20:30], groups=_ids(options, slice(20, 30)), source="a.npy", start=20)
    before = _numbers(accumulator)
    with pytest.raises(StateMismatchError, match=r"rows 25 to 30 of 'a.npy' are in both .*count them twice"):
        accumulator.update(X[25:35], groups=_ids(options, slice(25, 35)), source="a.npy", start=25)
    assert _numbers(accumulator) == before
    accumulator.update(X[25:35], groups=_ids(options, slice(25, 35)), source="b.npy", start=25)
    assert accumulator.state.coverage.ranges == {"a.npy": ((0, 30),), "b.npy": ((25, 35),)}
    with pytest.raises(StateMismatchError, match=r"rows 0 to 30 of 'a\.npy'"):
        accumulator.merge(accumulator)
    accumulator.update(X[:20], groups=_ids(options, slice(0, 20)))
    assert accumulator.result().n == 60


def test_a_source_without_a_start_goes_on_where_it_stopped() -> None:
    accumulator = Accumulator().update(X[:20])
    accumulator.update(X[20:30], source="a.npy").update(X[30:35], source="a.npy").update(X[:5], source="b.npy")
    assert accumulator.state.coverage.ranges == {"a.npy": ((0, 15),), "b.npy": ((0, 5),)}


def test_invalid_rows_are_told_at_the_end(options: dict[str, Any], backend: str) -> None:
    bad = X.clone()
    bad[47, 2], bad[53] = math.nan, 0
    for kind in ("raise", "omit"):
        accumulator = Accumulator(**options, invalid=kind, backend=backend)
        for rows in (slice(0, 20), slice(20, 40), slice(40, 60)):
            accumulator.update(bad[rows], groups=_ids(options, rows))
        if kind == "omit":
            assert vars(accumulator.result().dropped) == {"masked": 0, "zero": 1, "nonfinite": 1}
            continue
        with pytest.raises(InvalidRowsError, match=r"row 47 is the first that is zero or holds NaN or Inf"):
            accumulator.result()
    named = Accumulator(backend=backend).update(X[:10]).update(bad[40:], start=1040)
    with pytest.raises(InvalidRowsError, match="row 1047"):
        named.result()


@pytest.mark.parametrize("invalid", ["raise", "omit"])
@pytest.mark.parametrize("outside", [-1, 3])
def test_group_ids_outside_always_raise(invalid: str, outside: int, backend: str) -> None:
    ids = IDS.clone()
    ids[7] = ids[9] = outside
    accumulator = Accumulator(groups=3, invalid=invalid, backend=backend).update(X, groups=ids)
    with pytest.raises(InvalidRowsError, match=r"groups: expected ids from 0 to 2 .* 2 row\(s\) have an id outside"):
        accumulator.result()
    assert Accumulator(groups=3, backend=backend).update(X, ids != outside, ids).result().n == 58


def test_reset_forgets_rows_and_dimension() -> None:
    accumulator = Accumulator(gram=True).update(X)
    accumulator.reset()
    assert accumulator.update(X[:, :3]).result().dim == 3


def test_mismatched_updates_say_what_was_expected() -> None:
    accumulator = Accumulator().update(X)
    with pytest.raises(ValueError, match="hidden: expected rows of 5 numbers as in the first update, got 4"):
        accumulator.update(X[:, :4])
    with pytest.raises(ValueError, match="groups: the accumulator was made without groups="):
        accumulator.update(X, groups=IDS)
    with pytest.raises(ValueError, match="groups: the accumulator has groups=3, so every update needs"):
        Accumulator(groups=3).update(X)
    with pytest.raises(ValueError, match=r"nothing accumulated yet: .* call update"):
        Accumulator().result()
    assert accumulator.result().n == 60


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gram": "full"}, "gram: expected False, True, 'raw' or 'unit'"),
        ({"groups": 0}, "groups: expected the number of groups"),
        ({"groups": True}, "groups: expected the number of groups"),
        ({"backend": "gpu"}, "backend: expected one of"),
        ({"invalid": "skip"}, "invalid: expected 'raise' or 'omit'"),
        ({"memory_limit": "lots"}, "memory_limit: expected bytes"),
    ],
)
def test_wrong_options_are_refused_at_once(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Accumulator(**wrong)


def test_memory_limit_stops_before_the_update() -> None:
    accumulator = Accumulator(gram=True, memory_limit=10_000)
    with pytest.raises(MemoryError, match="memory_limit: 10 kB given"):
        accumulator.update(X)
    Accumulator(gram=True, memory_limit="10 MB").update(X)


def test_states_are_open() -> None:
    assert isinstance(Accumulator().update(X).state, Moments)
    accumulator = Accumulator(gram="unit", groups=3).update(X, groups=IDS)
    assert isinstance(accumulator.state, Gram)
    assert isinstance(accumulator.moments, Moments)
    assert accumulator.group_moments is not None
    assert accumulator.group_moments.counts.tolist() == [20, 20, 20]


def test_state_dict_travels_through_torch_save(options: dict[str, Any]) -> None:
    accumulator = Accumulator(**options).update(X, groups=_ids(options), source="rows", start=0)
    file = io.BytesIO()
    torch.save(accumulator.state_dict(), file)
    file.seek(0)
    restored = Accumulator(**options)
    restored.load_state_dict(torch.load(file, weights_only=True))
    _assert_same(restored, accumulator)
    with pytest.raises(StateMismatchError, match="count them twice"):
        restored.merge(accumulator)
    empty = Accumulator(**options)
    restored.load_state_dict(empty.state_dict())
    with pytest.raises(ValueError, match="nothing accumulated yet"):
        restored.result()


def test_state_dicts_that_do_not_fit() -> None:
    content = Accumulator(gram=True).update(X).state_dict()
    with pytest.raises(StateMismatchError, match="does not fit an accumulator of scatters none"):
        Accumulator().load_state_dict(content)
    fits = Accumulator(gram=True).update(X)
    for wrong in (
        {},
        {**content, "kind": "Adam"},
        {**content, "version": 99},
        {name: value for name, value in content.items() if name != "state"},
        {**content, "state": {**content["state"], "kind": "Moments"}},
        {**content, "state": {**content["state"], "scatter": torch.zeros(4, 4)}},
    ):
        with pytest.raises(CorruptStateError):
            fits.load_state_dict(wrong)
    assert fits.result().n == 60


@pytest.mark.parametrize("options", [{}, {"gram": True, "groups": 3}], ids=str)
def test_a_hook_inside_torch_compile(options: dict[str, Any]) -> None:
    """In the graph, without a break, and compiled twice at most: the first update and every other."""
    torch._dynamo.reset()
    graphs = 0

    def counting(graph: Any, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    accumulator, expected = Accumulator(**options), Accumulator(**options)
    layer = torch.nn.Linear(5, 5).double()
    ids = None if "groups" not in options else torch.arange(6).view(2, 3) % 3

    def hook(module: Any, arguments: Any, output: torch.Tensor) -> None:
        accumulator.update(output, groups=ids)

    handle = layer.register_forward_hook(hook)
    compiled = torch.compile(torch.nn.Sequential(layer), backend=counting, fullgraph=True)
    batches = X.view(10, 2, 3, 5)
    for batch in batches:
        compiled(batch)
    handle.remove()
    for batch in batches:
        expected.update(layer(batch), groups=ids)
    assert graphs == 2
    _assert_same(accumulator, expected)
    torch._dynamo.reset()


def test_gradients_do_not_flow_into_the_state() -> None:
    hidden = X.clone().requires_grad_()
    accumulator = Accumulator(gram=True).update(hidden * 2)
    assert not accumulator.state.sums.requires_grad


def test_an_update_never_asks_for_a_value(options: dict[str, Any]) -> None:
    """Fake tensors have none: whatever would wait for a device raises here."""
    accumulator = Accumulator(**options)
    with FakeTensorMode():
        hidden, mask = torch.empty(2, 3, 5), torch.empty(2, 3, dtype=torch.bool)
        ids = None if "groups" not in options else torch.empty(2, 3, dtype=torch.int32)
        for _ in range(2):
            accumulator.update(hidden, mask, ids)
        accumulator.update(hidden, mask, ids, source="a", start=0)
        accumulator.merge(Accumulator(**options).update(hidden, mask, ids))
        with pytest.raises(RuntimeError):
            accumulator.result()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_updates_do_not_wait_and_results_agree(options: dict[str, Any]) -> None:
    x, ids = X.cuda(), _ids(options)
    ids = None if ids is None else ids.cuda()
    accumulator = Accumulator(**options).update(x, groups=ids)  # compiles its kernels
    accumulator.reset()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for part in range(0, 60, 20):
            rows = slice(part, part + 20)
            accumulator.update(x[rows], groups=None if ids is None else ids[rows])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = Accumulator(**options, backend="reference").update(X, groups=_ids(options)).result()
    result = accumulator.result()
    assert result.mean_cosine == pytest.approx(expected.mean_cosine, abs=1e-6)
    for name in ("cosine_std", "isoscore", "effective_rank", "within_groups", "between_groups"):
        value = getattr(expected, name)
        assert getattr(result, name) == (None if value is None else pytest.approx(value, rel=1e-5, abs=1e-6)), name
