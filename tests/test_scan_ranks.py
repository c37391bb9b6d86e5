"""A scan by several ranks gives what one process gives, whatever is asked for and however it is cut short."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import forked
import pytest
import tiny
import torch
import torch.distributed as dist
import transformers
from same_states import same_states
from test_scan_attention import sharp

import fastaniso
from fastaniso.scanning import ScanResult, ScanStoppedError, alarm
from fastaniso.scanning.dealing import Deal
from fastaniso.scanning.modalities import ModelBatch
from fastaniso.state import State, bytes_to_state, state_to_bytes

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are forked, so that many of them take seconds"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
TEXTS = [tiny.words(n, seed=n) for n in (5, 30, 12, 13, 21, 3, 17, 26, 9, 11, 40)]


def scan(family: str = "bert", group: Any = None, data: Any = None, **options: Any) -> ScanResult:
    options = {"max_length": 16, "batch_size": 3, **options}
    return fastaniso.scan(sharp(family), data or TEXTS, tokenizer=tiny.tokenizer(), group=group, **options)


@pytest.fixture(autouse=True, scope="module")
def imported() -> None:
    """What a scan imports, once and not in every fork."""
    torch.set_num_threads(1)
    scan(attention=True)


def every_state(result: ScanResult) -> dict[str, State]:
    return {**result.states, **({} if result.attention is None else result.attention.states)}


def plain(result: ScanResult) -> dict[str, Any]:
    """What a rank tells of its result, as JSON."""
    tokens = [result.tokens.kept, result.tokens.sequences, result.tokens.batches, dict(result.tokens.dropped)]
    refused = None if result.attention is None else dict(result.attention.refused)
    states = {name: state_to_bytes(state).hex() for name, state in every_state(result).items()}
    return {"tokens": tokens, "refused": refused, "states": states}


def states_of(found: Mapping[str, Any]) -> dict[str, State]:
    return {name: bytes_to_state(bytes.fromhex(written)) for name, written in found["states"].items()}


def all_same(ranks: Sequence[Mapping[str, Any]]) -> bool:
    """To the bit; files of one state may have their header in another order."""
    return all(
        same_states(states_of(each), states_of(ranks[0])) and {**each, "states": 0} == {**ranks[0], "states": 0}
        for each in ranks
    )


def check_same(found: Mapping[str, Any], whole: ScanResult) -> None:
    """Whole numbers, coverage and settings exactly; sums of float32 numbers to their rounding."""
    expected = plain(whole)
    assert found["tokens"] == expected["tokens"]
    assert found["refused"] == expected["refused"]
    assert found["states"].keys() == expected["states"].keys()
    for name, state in every_state(whole).items():
        ours = states_of(found)[name].to_dict()
        for part, value in state.to_dict().items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                # Kernels add float32 rows in float32 for a while, in another order where batches are dealt out.
                scale = value[value.isfinite()].abs().max()
                torch.testing.assert_close(ours[part], value, rtol=1e-6, atol=1e-6 * float(scale), msg=f"{name} {part}")
            elif isinstance(value, torch.Tensor):
                assert torch.equal(ours[part], value), (name, part)
            else:
                assert ours[part] == value, (name, part)


@pytest.mark.parametrize(("family", "size"), [("bert", 3), ("llama", 2), ("bart", 2), ("albert", 2)])
def test_attention_too(family: str, size: int, tmp_path: Path) -> None:
    whole = scan(family, attention=True)
    ranks = forked.on_ranks(size, tmp_path / "a", lambda _: plain(scan(family, dist.group.WORLD, attention=True)))
    assert all_same(ranks)
    check_same(ranks[0], whole)


def test_a_rank_without_a_batch(tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": TEXTS[:3], "attention": True}
    whole = scan(**options)
    assert whole.tokens.batches == 2
    ranks = forked.on_ranks(3, tmp_path / "a", lambda _: plain(scan(group=dist.group.WORLD, **options)))
    assert all_same(ranks)
    check_same(ranks[0], whole)


def test_the_limit_is_that_of_all_ranks(tmp_path: Path) -> None:
    whole = scan(max_tokens=70)
    assert (whole.tokens.kept, whole.tokens.limited) == (70, True)

    def body(_: int) -> dict[str, Any]:
        result = scan(group=dist.group.WORLD, max_tokens=70)
        assert result.tokens.limited
        return plain(result)

    check_same(forked.on_ranks(2, tmp_path / "a", body)[0], whole)


def windowed(lengths: list[int], **options: Any) -> ScanResult:
    """A model whose attention reaches 6 tokens back, which shows in sequences that are longer."""
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=tiny.VOCABULARY, hidden_size=32, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, num_hidden_layers=2, sliding_window=6,
    )  # fmt: skip
    model = transformers.AutoModel.from_config(config).eval()
    texts = [tiny.words(n, seed=n) for n in lengths]
    return fastaniso.scan(model, texts, tokenizer=tiny.tokenizer(), attention=True, batch_size=2, **options)


def test_all_ranks_go_by_the_masks_of_the_first_batch(tmp_path: Path) -> None:
    lengths = [12, 11, 3, 2]  # the second rank sees no window
    whole = windowed(lengths)
    assert whole.attention is not None
    state = whole.attention.states["block.1.attention"]
    assert isinstance(state, fastaniso.Attention)
    assert state.window == 6
    ranks = forked.on_ranks(2, tmp_path / "a", lambda _: plain(windowed(lengths, group=dist.group.WORLD)))
    check_same(ranks[0], whole)


@pytest.mark.parametrize(("length", "reason"), [(6, "later masks hid other keys"), (8, "its mask of 8 queries")])
def test_what_one_rank_cannot_read_all_leave_out(length: int, reason: str, tmp_path: Path) -> None:
    """Sequences that are packed, which only the second batch, of the second rank, has."""

    def batch(count: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(count)
        return {"input_ids": torch.randint(4, tiny.VOCABULARY, (2, count), generator=generator)}

    hidden = torch.ones(length, length).tril() * torch.block_diag(*[torch.ones(length // 2, length // 2)] * 2) == 0
    packed = torch.zeros(2, 1, length, length).masked_fill(hidden, float("-inf"))
    padded = torch.ones(2, 6, dtype=torch.int64).index_fill(1, torch.tensor([5]), 0)
    data = [{**batch(6), "attention_mask": padded}, {**batch(length), "attention_mask": packed}, batch(5)]

    def scan(group: Any = None) -> ScanResult:
        return fastaniso.scan(sharp("llama"), data, attention=True, group=group)

    whole = scan()
    assert whole.attention is not None
    assert list(whole.attention.refused) == ["block.0", "block.1", "block.2"]
    assert reason in whole.attention.refused["block.1"]
    ranks = forked.on_ranks(2, tmp_path / "a", lambda _: plain(scan(dist.group.WORLD)))
    assert all_same(ranks)
    check_same(ranks[0], whole)


def test_every_batch_is_dealt_once_whatever_runs_came_before() -> None:
    chance = random.Random(5)
    batches = [ModelBatch({}, chance.randint(1, 4), lambda *_: None, 1.0) for _ in range(60)]  # type: ignore[arg-type,return-value]
    for _ in range(40):
        read: list[int] = []
        before: tuple[tuple[int, ...], ...] = ()
        for run in range(4):
            size, counts = chance.randint(1, 5), []
            for rank in range(size):
                turns = list(Deal(rank, size, before).turns(batches, 0))
                done = len(turns) if run == 3 else chance.randint(0, len(turns))
                # Killed after some of them, and gone on with by as many ranks.
                again = chance.randint(0, done)
                rest = list(Deal(rank, size, before).turns(batches, again))
                assert [turn.number for turn in rest] == [turn.number for turn in turns[again:]]
                read += [turn.number for turn in turns[:done]]
                assert all(turn.first == sum(b.items for b in batches[: turn.number]) for turn in turns)
                assert sum(turn.bytes for turn in turns) == (turns[-1].number + 1 if turns else 0)
                counts.append(done)
            before = (*before, tuple(counts))
        assert sorted(read) == list(range(60))


def test_ranks_that_are_given_other_data_are_told(tmp_path: Path) -> None:
    def body(rank: int) -> str:
        with pytest.raises(
            ValueError, match="data: rank 0 was given 6 batches of 18 items; rank 1 was given 1 batches"
        ):
            scan(group=dist.group.WORLD, data=TEXTS[: 11 - 10 * rank])
        return "told"

    assert forked.on_ranks(2, tmp_path / "a", body) == ["told", "told"]


def test_an_error_on_one_rank_stops_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "SECONDS", 0.0)

    def body(rank: int) -> list[Any]:
        seen = 0

        def stop(progress: Any) -> None:
            nonlocal seen
            seen = progress.steps
            if rank == 1 and seen == 2:
                raise OSError("no more")
            time.sleep(0.05)

        with pytest.raises(ScanStoppedError) as stopped:
            scan(group=dist.group.WORLD, data=TEXTS * 30, batch_size=1, progress=stop)
        result = stopped.value.result
        assert not result.complete
        assert "these are the rows of one of 3 ranks alone" in result.notes
        return [str(stopped.value), seen]

    first, second, third = forked.on_ranks(3, tmp_path / "a", body)
    assert second == ["no more (in batch 5, counted from 0)", 2]
    for text, seen in first, third:
        assert text == "rank 1: OSError: no more"
        assert seen < 10


def test_a_rank_that_is_slower_is_waited_for_beyond_the_time_limit_of_the_group(tmp_path: Path) -> None:
    whole = scan()

    def body(rank: int) -> dict[str, Any]:
        group = dist.new_group(timeout=timedelta(seconds=1))

        def slowly(progress: Any) -> None:
            time.sleep(1.0 if rank == 1 and progress.steps == 1 else 0.0)
            time.sleep(0.7 if rank == 1 else 0.0)

        return plain(scan(group=group, progress=slowly))

    ranks = forked.on_ranks(2, tmp_path / "a", body)
    assert all_same(ranks)
    check_same(ranks[0], whole)
