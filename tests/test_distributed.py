"""Rows that lie in shares on several ranks give what the same rows in one place give."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import torch.distributed as dist

import fastaniso
from fastaniso import distributed
from fastaniso.distributed import exchange
from fastaniso.distributed.ring import Ring, Shard
from fastaniso.distributed.starting import meet
from fastaniso.ops import dispatch
from fastaniso.rows import as_rows

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are forked, so that many of them take seconds"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
ROWS = torch.randn(301, 12, generator=torch.Generator().manual_seed(0)) + 0.3
SHARES = {1: [301], 2: [100, 201], 3: [0, 300, 1], 4: [50, 151, 0, 100], 5: [60, 60, 60, 60, 61]}


def on_ranks(size: int, folder: Path, body: Callable[[int], Any]) -> list[Any]:
    """What ``body(rank)`` gives on each rank of a group of processes, or the error it raised."""
    children = []
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            try:
                torch.set_num_threads(1)  # threads of the test's own process are not there in a fork
                signal.alarm(120)  # a rank that hangs fails its test
                store = dist.FileStore(str(folder / "store"), size)
                dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
                try:
                    found: Any = {"value": body(rank)}
                except Exception as error:
                    found = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
                (folder / f"{rank}.json").write_text(json.dumps(found))
                dist.barrier()
                dist.destroy_process_group()
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    (folder / "store").unlink(missing_ok=True)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]


def values(found: list[Any]) -> list[Any]:
    assert all("value" in each for each in found), "\n".join(each.get("trace", "") for each in found)
    return [each["value"] for each in found]


def share(rows: torch.Tensor, size: int, rank: int) -> torch.Tensor:
    return rows.split(SHARES[size])[rank]


@pytest.mark.parametrize("size", SHARES)
@pytest.mark.parametrize("masked", [False, True])
def test_all_pairs(size: int, masked: bool, tmp_path: Path) -> None:
    mask = torch.arange(301) % 7 != 3 if masked else None

    def body(rank: int) -> Any:
        own = None if mask is None else share(mask, size, rank)
        found = distributed.pairs(share(ROWS, size, rank), bins=64, thresholds=(0.5,), mask=own)
        return [
            found.histogram.counts().tolist(), found.mean, found.std, found.uniformity, found.max, found.min, found.n,
            found.share_above(0.5).value,
        ]  # fmt: skip

    ranks = values(on_ranks(size, tmp_path, body))
    assert all(each == ranks[0] for each in ranks)
    counts, mean, std, uniformity, largest, least, n, above = ranks[0]
    whole = fastaniso.pairs(ROWS, bins=64, thresholds=(0.5,), mask=mask)
    assert counts == whole.histogram.counts().tolist()
    assert (mean, std, uniformity) == pytest.approx((whole.mean, whole.std, whole.uniformity), rel=1e-7)
    assert tuple(largest) == tuple(whole.max)
    assert tuple(least) == tuple(whole.min)
    assert (n, above) == (whole.n, whole.share_above(0.5).value)


@pytest.mark.parametrize("size", SHARES)
def test_nearest_neighbors(size: int, tmp_path: Path) -> None:
    rows = ROWS.clone()
    rows[200:210] = rows[:10]  # equals, some on other ranks: the smaller index first

    def body(rank: int) -> Any:
        found = distributed.nearest_neighbors(share(rows, size, rank), 6)
        return found.cosines.tolist(), found.indices.tolist()

    ranks = values(on_ranks(size, tmp_path, body))
    whole = fastaniso.nearest_neighbors(rows, 6)
    assert [list_ for cosines, _ in ranks for list_ in cosines] == whole.cosines.tolist()
    assert [list_ for _, indices in ranks for list_ in indices] == whole.indices.tolist()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_shards_of_several_blocks(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed.statistics, "rows_in_block", lambda *_: 64)

    def body(rank: int) -> Any:
        own = share(ROWS, size, rank)
        found, lists = distributed.pairs(own, bins=64), distributed.nearest_neighbors(own, 6)
        return found.histogram.counts().tolist(), list(found.max), lists.indices.tolist()

    ranks = values(on_ranks(size, tmp_path, body))
    whole = fastaniso.pairs(ROWS, bins=64)
    assert all(counts == whole.histogram.counts().tolist() for counts, _, _ in ranks)
    assert all(tuple(largest) == tuple(whole.max) for _, largest, _ in ranks)
    assert [row for _, _, rows in ranks for row in rows] == fastaniso.nearest_neighbors(ROWS, 6).indices.tolist()


@pytest.mark.parametrize("size", [2, 3, 5])
def test_describe(size: int, tmp_path: Path) -> None:
    def body(rank: int) -> Any:
        return distributed.describe(share(ROWS, size, rank)).to_dict()

    ranks = values(on_ranks(size, tmp_path, body))
    assert all(each == ranks[0] for each in ranks)
    whole = fastaniso.describe(ROWS)
    for name in ("n", "mean_cosine", "cosine_std", "isoscore", "effective_rank"):
        assert ranks[0][name] == pytest.approx(getattr(whole, name), rel=1e-7), name


def test_states_of_every_kind_are_merged_in_the_order_of_the_ranks(tmp_path: Path) -> None:
    size = 5

    def states(rank: int) -> list[Any]:
        rows, start = as_rows(share(ROWS, size, rank)), 60 * rank
        named = {"backend": "cpu", "start": start, "source": "rows"}
        groups = torch.arange(rows.count).view(1, -1) % 3
        return [
            dispatch.moments(rows, **named),
            dispatch.gram(rows, **named),
            dispatch.group_moments(rows, groups, 3, **named),
            dispatch.pairs(rows, bins=64, **named),
            dispatch.neighbors(rows, k=2, **named),
        ]

    def body(rank: int) -> Any:
        merged = [distributed.merge(state) for state in states(rank)]
        return [
            {name: value.tolist() for name, value in state.to_dict().items() if isinstance(value, torch.Tensor)}
            for state in merged
        ]

    ranks = values(on_ranks(size, tmp_path, body))
    assert all(each == ranks[0] for each in ranks)
    for place, kind in enumerate(zip(*map(states, range(size)), strict=True)):
        a, b, c, d, e = kind
        expected = a.merge(b).merge(c.merge(d)).merge(e).to_dict()
        for name, value in ranks[0][place].items():
            assert value == expected[name].tolist(), (expected["kind"], name)


def test_a_mistake_on_one_rank_raises_on_all(tmp_path: Path) -> None:
    def body(rank: int) -> Any:
        own = share(ROWS, 3, rank).clone()
        if rank == 1:
            own[3] = 0
        told = []
        for call in (
            lambda: distributed.pairs(own.long() if rank == 2 else own),
            lambda: distributed.pairs(own),
            lambda: distributed.describe(own),
            lambda: distributed.pairs(own[:, : 12 - rank]),
            lambda: distributed.nearest_neighbors(own[:1], 5),
            lambda: distributed.merge(dispatch.moments(as_rows(ROWS), source="rows", backend="cpu")),
        ):
            try:
                call()
                told.append("")
            except Exception as error:
                told.append(f"{type(error).__name__}: {error}")
        return told

    for rank, told in enumerate(values(on_ranks(3, tmp_path, body))):
        assert "expected float32" in told[0]
        assert told[0].startswith("TypeError" if rank == 2 else "RankError: rank 2: TypeError")
        assert told[1].startswith("InvalidRowsError: hidden: row 3 is zero")
        assert told[2].startswith("InvalidRowsError: hidden: row 3 is zero")
        assert "rank 0 has rows of 12 numbers" in told[3]
        assert "k: expected at most 1" in told[4]
        assert "both states" in told[5]


def test_all_ranks_have_to_ask_for_the_same(tmp_path: Path) -> None:
    def body(rank: int) -> Any:
        own = share(ROWS, 3, rank)
        told = []
        for call in (
            lambda: distributed.pairs(own, bins=64 + rank % 2),
            lambda: distributed.nearest_neighbors(own, 4 + rank // 2),
            lambda: distributed.pairs(own, invalid=("raise", "omit", "raise")[rank]),
            lambda: distributed.pairs(own) if rank < 2 else distributed.describe(own),
            lambda: distributed.merge(dispatch.pairs(as_rows(own), bins=8 + rank % 2, backend="cpu")),
            lambda: distributed.merge((dispatch.gram if rank == 2 else dispatch.moments)(as_rows(own), backend="cpu")),
        ):
            with pytest.raises((ValueError, distributed.RankError)) as told_of:
                call()
            told.append(str(told_of.value))
        return told

    for told in values(on_ranks(3, tmp_path, body)):
        assert told[0].startswith("bins: rank 0 has 64, rank 1 65; all ranks need the same")
        assert told[1].startswith("k: rank 0 has 4, rank 2 5;")
        assert told[2].startswith("invalid: rank 0 has 'raise', rank 1 'omit';")
        assert told[3].startswith("call: rank 0 has 'pairs', rank 2 'describe';")
        assert "8 bins" in told[4]
        assert "9 bins" in told[4]
        assert "expected one kind on all ranks, got Moments, Gram" in told[5]


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("call", ["pairs", "nearest_neighbors"])
def test_a_kernel_that_fails_on_one_rank_raises_on_all(size: int, call: str, tmp_path: Path) -> None:
    """Whether with its own rows or in the middle of the ring: nobody is left waiting, and the next call works."""

    def body(rank: int) -> Any:
        told = []
        for fails_at in range(1, size // 2 + 2):
            with pytest.MonkeyPatch.context() as patch:
                if rank == 1:
                    fail_at(patch, fails_at)
                try:
                    distributed.pairs(share(ROWS, size, rank)) if call == "pairs" else distributed.nearest_neighbors(
                        share(ROWS, size, rank), 3
                    )
                except Exception as error:
                    told.append(f"{type(error).__name__}: {error}")
        return told, distributed.pairs(share(ROWS, size, rank)).mean

    def fail_at(patch: pytest.MonkeyPatch, number: int) -> None:
        seen: list[None] = []

        def counting(real: Callable[..., Any]) -> Callable[..., Any]:
            def op(*arguments: Any, **options: Any) -> Any:
                seen.append(None)
                if len(seen) == number:
                    raise MemoryError("no more of it")
                return real(*arguments, **options)

            return op

        for name in ("pairs", "neighbors", "mutual_neighbors"):
            patch.setattr(dispatch, name, counting(getattr(dispatch, name)))

    found = values(on_ranks(size, tmp_path, body))
    for rank, (told, mean) in enumerate(found):
        message = "MemoryError: no more of it"
        assert told == [message if rank == 1 else f"RankError: rank 1: {message}"] * (size // 2 + 1)
        assert mean == pytest.approx(fastaniso.pairs(ROWS).mean, rel=1e-7)


UNEVEN = ([100, 100], [60, 140], [10, 300], [80, 30, 50, 40], [70, 1, 60, 9, 90, 80], [0, 5], [50] * 5)


@pytest.mark.parametrize("counts", UNEVEN, ids=str)
def test_opposite_ranks_form_equally_many_pairs(counts: list[int], tmp_path: Path) -> None:
    size, half = len(counts), len(counts) // 2

    def body(rank: int) -> Any:
        own = Shard(torch.zeros(counts[rank], 2), torch.ones(counts[rank], dtype=torch.bool), sum(counts[:rank]))
        met = [m.ours.count * m.theirs.count for m in Ring(counts, None).meetings(own)]
        return own.count * (own.count - 1) // 2 + sum(met), met[-1]

    formed = values(on_ranks(size, tmp_path, body))
    n = sum(counts)
    assert sum(pairs for pairs, _ in formed) == n * (n - 1) // 2
    for rank in range(half if size % 2 == 0 else 0):
        (less, _), (more, last_of_more) = sorted((formed[rank], formed[rank + half]))
        # To the pairs of one row, unless one has more to do without those that both could form.
        assert more - less <= max(counts) or last_of_more == 0


@pytest.mark.parametrize("counts", UNEVEN, ids=str)
def test_nearest_neighbors_of_uneven_shards(counts: list[int], tmp_path: Path) -> None:
    """With what a shard's rows have found at home known to others, or not where that would be waited for."""
    rows = torch.cat((ROWS, ROWS.flip(0)))[: sum(counts)].clone()
    rows[-2:] = rows[:2].clone()

    def body(rank: int) -> Any:
        found = distributed.nearest_neighbors(rows.split(counts)[rank], 4)
        return found.cosines.tolist(), found.indices.tolist()

    ranks = values(on_ranks(len(counts), tmp_path, body))
    whole = fastaniso.nearest_neighbors(rows, 4)
    assert [list_ for cosines, _ in ranks for list_ in cosines] == whole.cosines.tolist()
    assert [list_ for _, indices in ranks for list_ in indices] == whole.indices.tolist()


def test_what_all_ranks_tell_may_be_long(tmp_path: Path) -> None:
    def body(rank: int) -> Any:
        return [exchange.gather_json({"text": "ü" * length * rank}, None) for length in (1, 3000, 100_000)]

    expected = [[{"text": "ü" * length * rank} for rank in range(3)] for length in (1, 3000, 100_000)]
    assert values(on_ranks(3, tmp_path, body)) == [expected] * 3


@pytest.mark.parametrize(("backend", "device"), [("gloo", "cpu"), ("nccl", "cuda:3"), ("cpu:gloo,cuda:nccl", "cpu")])
def test_what_all_ranks_tell_goes_where_the_group_can_send_it(
    backend: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def framed(content: Any, tensors: Any, at_least: int, device: torch.device) -> Any:
        raise InterruptedError(str(device))

    monkeypatch.setattr(dist, "get_backend", lambda group: backend)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(exchange, "_framed", framed)
    with pytest.raises(InterruptedError, match=f"^{device}$"):
        exchange.gather_json("anything", None)


def test_omitted_rows_are_counted_over_all_ranks(tmp_path: Path) -> None:
    def body(rank: int) -> Any:
        own = share(ROWS, 2, rank).clone()
        own[rank] = torch.nan
        found = distributed.pairs(own, bins=64, invalid="omit")
        return found.n, found.dropped.nonfinite, int(found.histogram.counts().sum())

    assert values(on_ranks(2, tmp_path, body)) == [[299, 2, 299 * 298 // 2]] * 2
    assert np.isfinite(ROWS.numpy()).all()


@pytest.mark.parametrize("size", [2, 5])
def test_a_scan_by_several_ranks(size: int, tmp_path: Path) -> None:
    """The figures of one process, also where there are fewer batches than ranks."""
    texts = [tiny.words(n, seed=n) for n in (5, 30, 12, 12, 21, 3, 17, 26)]
    options: dict[str, Any] = {"tokenizer": tiny.tokenizer(), "max_length": 16, "batch_size": 4 if size < 5 else 9}

    def body(rank: int) -> Any:
        found = fastaniso.scan(tiny.model("bert"), texts, group=dist.group.WORLD, **options)
        return [found.tokens.kept, found.tokens.sequences, found.tokens.batches, found.tokens.dropped], [
            [site.description.mean_cosine, site.description.isoscore, site.within_sequence, site.across_sequences]
            for site in found.sites
        ]

    torch.set_num_threads(1)
    whole = fastaniso.scan(tiny.model("bert"), texts, **options)
    ranks = values(on_ranks(size, tmp_path, body))
    assert all(each == ranks[0] for each in ranks)
    counts, sites = ranks[0]
    assert counts == [whole.tokens.kept, whole.tokens.sequences, whole.tokens.batches, whole.tokens.dropped]
    for figures, site in zip(sites, whole.sites, strict=True):
        described = site.description
        expected = [described.mean_cosine, described.isoscore, site.within_sequence, site.across_sequences]
        assert figures == pytest.approx(expected, rel=1e-6)


def test_a_rank_that_never_starts_is_named(tmp_path: Path) -> None:
    def told(ranks: list[int]) -> list[str]:
        children = []
        for rank in ranks:
            pid = os.fork()
            if pid == 0:
                try:
                    meet(dist.FileStore(str(tmp_path / "store"), 5), rank, 5, 0.5)
                    text = "all are here"
                except distributed.RankError as error:
                    text = str(error)
                (tmp_path / f"{rank}.txt").write_text(text)
                os._exit(0)
            children.append(pid)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        (tmp_path / "store").unlink(missing_ok=True)
        return [(tmp_path / f"{rank}.txt").read_text() for rank in ranks]

    assert told([0, 1, 2, 3, 4]) == ["all are here"] * 5
    assert told([0, 2, 3]) == ["ranks 1, 4 of 5 did not start within 0.5 s; see their logs, or start anew"] * 3
    assert told([0, 1, 2, 3])[0].startswith("rank 4 of 5 did not start")
