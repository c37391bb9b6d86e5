"""Texts stream in order and whole, sequences are masked and padded as told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from fastaniso.models.masks import MEASURED, SPECIAL, TEXT_REASONS, coded
from fastaniso.sources import as_texts, batches, chunks
from fastaniso.sources import texts as texts_module
from fastaniso.sources.chunks import Chunk, limited


def ids_of(sequences: list[Chunk]) -> list[int]:
    return [t for chunk in sequences for t, code in zip(chunk.ids, chunk.codes, strict=True) if code == MEASURED]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_module, "PIECE", 50)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("options", [{}, {"chunk_words": 7}], ids=["tokens", "words"])
def test_a_text_file_streams_in_order_and_whole(tmp_path: Path, options: dict[str, int]) -> None:
    path = tmp_path / "text.txt"
    path.write_text(tiny.words(300).replace(" w5", "\nw5"))
    tokenizer = tiny.tokenizer()
    expected = tokenizer(path.read_text(), add_special_tokens=False)["input_ids"]
    texts = as_texts(path)
    found = list(chunks(texts, tokenizer, max_length=16, **options))
    assert ids_of(found) == expected
    assert all(len(chunk.ids) <= 16 for chunk in found)
    assert sum(chunk.bytes for chunk in found) == pytest.approx(texts.size, abs=40)
    assert list(texts) == list(texts), "a source of files can be read again"


@pytest.mark.usefixtures("small_pieces")
def test_words_are_counted_across_pieces_but_not_across_files(tmp_path: Path) -> None:
    for name, count in (("a.txt", 25), ("b.txt", 13)):
        (tmp_path / name).write_text(tiny.words(count))
    found = chunks(as_texts([tmp_path / "a.txt", tmp_path / "b.txt"]), tiny.tokenizer(), max_length=64, chunk_words=10)
    assert [chunk.kept for chunk in found] == [10, 10, 5, 10, 3]


def test_a_word_longer_than_a_piece_is_cut(tmp_path: Path, small_pieces: None) -> None:
    path = tmp_path / "long.txt"
    path.write_text("x" * 175)
    assert "".join(text.content for text in as_texts(path)) == "x" * 175


def test_jsonl_by_field(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(json.dumps({"body": tiny.words(n), "id": n}) for n in (4, 6)) + "\n\n")
    found = list(chunks(as_texts(path, field="body"), tiny.tokenizer(), max_length=64))
    assert [chunk.kept for chunk in found] == [4, 6]
    with pytest.raises(
        ValueError, match=r"records.jsonl, line 1: expected an object with a string 'text'; it has body"
    ):
        list(as_texts(path))
    path.write_text('{"text": "w5"}\n{broken\n')
    with pytest.raises(ValueError, match="line 2: not JSON"):
        list(as_texts(path))


def test_strings_are_texts_and_a_lone_string_is_refused() -> None:
    assert [text.content for text in as_texts(["a b", "c"])] == ["a b", "c"]
    assert [text.content for text in as_texts(iter(["a b"]))] == ["a b"]
    with pytest.raises(TypeError, match=r"pass pathlib.Path\(...\) for a file"):
        as_texts("text.txt")
    with pytest.raises(TypeError, match=r"data\[1\]: expected a str, got int"):
        list(as_texts(["a", 1]))
    with pytest.raises(FileNotFoundError, match=r"no file 'nowhere\.txt'"):
        as_texts(Path("nowhere.txt"))


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9 au lait")
    with pytest.raises(ValueError, match=r"latin.txt: expected UTF-8 text"):
        list(as_texts(path))


def test_special_tokens_are_dropped_and_counted() -> None:
    (chunk,) = chunks(as_texts(["w5 w6 w7"]), tiny.tokenizer(), max_length=16)
    assert chunk.ids == [1, 5, 6, 7, 2]
    assert chunk.codes == [SPECIAL, MEASURED, MEASURED, MEASURED, SPECIAL]


def test_bos_is_dropped_wherever_the_tokenizer_puts_it() -> None:
    tokenizer = tiny.tokenizer(special=False)
    tokenizer.bos_token = "w9"
    (chunk,) = chunks(as_texts(["w9 w6 w7"]), tokenizer, max_length=16)
    assert chunk.codes == [SPECIAL, MEASURED, MEASURED]


def test_a_tokenizer_in_python() -> None:
    """ByT5 has no Rust tokenizer: cut and marked here."""
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    text = "streaming bytes, one by one"
    found = list(chunks(as_texts([text]), tokenizer, max_length=10))
    assert tokenizer.decode(ids_of(found)) == text
    assert all(chunk.ids[-1] == tokenizer.eos_token_id and chunk.codes.count(SPECIAL) == 1 for chunk in found)
    assert max(len(chunk.ids) for chunk in found) == 10


def test_nothing_comes_of_texts_without_tokens() -> None:
    assert list(chunks(as_texts(["", "  \n"]), tiny.tokenizer(), max_length=16)) == []


@pytest.mark.parametrize("limit", [1, 7, 8, 20, 1000])
def test_a_limit_is_met_exactly(limit: int) -> None:
    sequences = list(chunks(as_texts([tiny.words(n) for n in (8, 3, 9)]), tiny.tokenizer(), max_length=16))
    found = list(limited(sequences, limit))
    assert ids_of(found) == ids_of(sequences)[:limit]
    assert all(a.ids == b.ids for a, b in zip(found, sequences, strict=False)), "the last sequence is read whole"


def test_batches_pad_on_the_right_and_count_what_is_dropped() -> None:
    sequences = chunks(as_texts([tiny.words(n) for n in (3, 8, 5)]), tiny.tokenizer(), max_length=16)
    first, second = batches(limited(sequences, 14), batch_size=2, pad_id=0)
    assert first.ids.shape == (2, 10)
    mask = coded(first.codes, TEXT_REASONS)
    assert (first.kept, mask.kept) == (11, 11)
    assert mask.dropped == {"special": 4, "padding": 3, "over the limit": 2}
    assert first.attention.sum() == 17
    assert (first.attention.bool() | ~mask.keep).all(), "what is kept is read"
    assert (second.kept, coded(second.codes, TEXT_REASONS).dropped) == (3, {"special": 2})


def test_without_padding_only_equal_lengths_share_a_batch() -> None:
    sequences = chunks(as_texts([tiny.words(n) for n in (3, 8, 3, 3, 8)]), tiny.tokenizer(), max_length=16)
    found = list(batches(sequences, batch_size=2, pad_id=None))
    assert [tuple(batch.ids.shape) for batch in found] == [(2, 10), (2, 5), (1, 5)]
    assert all(batch.attention.all() for batch in found)
