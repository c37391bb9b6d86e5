"""Characters, bytes, and texts from tables, folders and data sets, through a scan; memory does not grow with depth."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

import fastaniso
from fastaniso.models.masks import MEASURED, PADDING, SPECIAL, token_mask
from fastaniso.sources import Images, Sounds, Texts, as_data

TEXTS = ["streaming characters, one by one", "in", "a quarter as many molecules"]


def canine() -> Any:
    torch.manual_seed(0)
    config = transformers.CanineConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, num_hash_buckets=64
    )
    return transformers.AutoModel.from_config(config).eval()


def test_characters_and_their_molecules(monkeypatch: pytest.MonkeyPatch) -> None:
    """CANINE: rows of the three stacks are those of each text alone, and counted by stack."""
    model, tokenizer = canine(), tiny.canine_tokenizer(monkeypatch)
    result = fastaniso.scan(model, TEXTS, tokenizer=tokenizer, max_length=64)
    assert list(result.stacks) == ["initial_char_encoder.", "encoder.", "final_char_encoder."]
    assert result.tokens.kept == sum(map(len, TEXTS))
    assert result.tokens.dropped["special"] == 2 * len(TEXTS)
    molecules = []
    for text in TEXTS:
        # Room for one molecule more: CANINE leaves out the last of as many as fit.
        length = (len(text) + 2 + 3) // 4 * 4 + 4
        batch = tokenizer(text, padding="max_length", max_length=length, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch, output_hidden_states=True).hidden_states
        attended = model._downsample_attention_mask(batch["attention_mask"], 4).flatten().bool()
        # Molecule 0 is [CLS]; the last that is attended to may be made of [SEP] alone.
        made_of_text = torch.arange(len(attended)) * 4 - 3 <= len(text)
        made_of_text[0] = False
        molecules.append(hidden[3][0][attended & made_of_text])
    rows = torch.cat(molecules)
    found = result["encoder.block.0"].description
    assert found.n == len(rows)
    assert found.mean_cosine == pytest.approx(fastaniso.mean_cosine(rows.double(), backend="reference"), rel=1e-4)
    assert result["encoder.block.0"].masked.keys() == {"special", "padding"}


def test_codes_of_molecules() -> None:
    # [CLS] a b c | d e f g | h [SEP] · · | · · · ·
    codes = torch.tensor([[SPECIAL, *[MEASURED] * 8, SPECIAL, *[PADDING] * 6]])
    mask = token_mask(canine(), codes, (1, 4))
    assert mask.keep.tolist() == [[False, True, True, False]]
    assert mask.dropped == {"special": 1, "padding": 1}


def test_bytes() -> None:
    torch.manual_seed(0)
    tokenizer = transformers.ByT5Tokenizer(extra_ids=0)
    config = transformers.T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=48, num_heads=4, num_layers=2)
    result = fastaniso.scan(transformers.AutoModel.from_config(config), ["größer als"], tokenizer=tokenizer)
    assert list(result.stacks) == ["encoder.", "decoder."]
    assert result.tokens.kept == len("größer als".encode())
    assert result.tokens.dropped == {"special": 1}


def scan(data: Any, **options: Any) -> Any:
    return fastaniso.scan(tiny.model("bert"), data, tokenizer=tiny.tokenizer(), max_length=16, **options)


def test_blank_texts_are_counted() -> None:
    result = scan([tiny.words(5), "", " \n", tiny.words(4)])
    assert result.tokens.skipped == {"empty text": 2}
    assert any("text 1, text 2" in note for note in result.notes)


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = [tiny.words(n, seed=n) for n in (5, 20, 3)]
    path = tmp_path / "texts.parquet"
    parquet.write_table(arrow.table({"body": [*texts, None], "n": [1, 2, 3, 4]}), path, row_group_size=2)
    result = scan(path, field="body")
    assert result.tokens.kept == 28
    assert result.tokens.skipped == {"empty text": 1}
    assert result["block.0"].description.mean_cosine == scan(texts)["block.0"].description.mean_cosine
    with pytest.raises(ValueError, match=r"field: .* has no column 'text'; it has body, n"):
        scan(path)
    with pytest.raises(ValueError, match=r"field: column 'n' of .* is int64; expected strings"):
        scan(path, field="n")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        scan(path)


def test_a_folder_of_texts(tmp_path: Path) -> None:
    for number in (10, 9):
        (tmp_path / f"part-{number}.txt").write_text(tiny.words(number))
    (tmp_path / "more.jsonl").write_text('{"text": "w5 w6"}\n')
    data = as_data(tmp_path)
    assert isinstance(data, Texts)
    assert " ".join(text.content for text in data).split() == [
        "w5",
        "w6",
        *tiny.words(9).split(),
        *tiny.words(10).split(),
    ]
    assert (data.name, data.identity) == (str(tmp_path), str(tmp_path))
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="holds texts and images; name files of one kind"):
        as_data(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no texts"):
        as_data(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        as_data(tmp_path / "nowhere")


def test_data_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="data sets need datasets", exc_type=ImportError)
    texts = [tiny.words(n, seed=n) for n in (5, 20, 3)]
    dataset = datasets.Dataset.from_dict({"text": texts, "label": [0, 1, 2]})
    expected = scan(texts)["block.0"].description.mean_cosine
    assert scan(dataset)["block.0"].description.mean_cosine == expected
    assert scan(dataset.to_iterable_dataset())["block.0"].description.mean_cosine == expected
    dataset.save_to_disk(tmp_path / "saved")
    saved = scan(tmp_path / "saved")
    assert saved["block.0"].description.mean_cosine == expected
    with pytest.raises(ValueError, match="the data set has no column 'words'; it has text, label"):
        scan(dataset, field="words")
    with pytest.raises(TypeError, match="expected one split of a data set, got train"):
        scan(datasets.DatasetDict({"train": dataset}))
    sound = {"array": torch.linspace(-1, 1, 4000).numpy(), "sampling_rate": 16_000}
    kinds = datasets.Dataset.from_list([{"sound": sound, "image": None}])
    assert isinstance(as_data(kinds, field="sound"), Sounds)
    pillow = pytest.importorskip("PIL.Image", reason="images need the package pillow")
    pictures = datasets.Dataset.from_dict({"image": [pillow.new("L", (8, 6), shade) for shade in (10, 200)]})
    images = as_data(pictures.cast_column("image", datasets.Image()), field="image")
    assert isinstance(images, Images)
    assert [(image.picture.mode, image.picture.size) for image in images] == [("RGB", (8, 6))] * 2


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operations made and that are alive, and the most there ever were; not of weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known = WeakIdKeyDictionary({p.untyped_storage(): 0 for p in (*model.parameters(), *model.buffers())})

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: Any) -> None:
        if storage not in self._known:
            self._known[storage] = storage.nbytes()
            weakref.finalize(storage, self._freed, storage.nbytes())
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)

    def _freed(self, size: int) -> None:
        self.now -= size


def test_memory_does_not_grow_with_the_depth() -> None:
    """A scan of 32 layers takes no more than one of 4, but for the sums of its sites: no layer's states are kept."""
    ids = torch.randint(4, tiny.VOCABULARY, (8, 64))
    state = ids.numel() * 32 * 4

    def most(layers: int) -> int:
        config = tiny.CONFIGS["llama"]()
        config.num_hidden_layers, config.layer_types = layers, None
        model = transformers.AutoModel.from_config(config).eval()
        with LiveBytes(model) as live:
            result = fastaniso.scan(model, [{"input_ids": ids}] * 2, gram=False)
        sums = sum(t.nbytes for s in result.states.values() for t in vars(s).values() if isinstance(t, torch.Tensor))
        return live.most - sums

    shallow, deep = most(4), most(32)
    assert shallow > 2 * state, "what is alive is counted"
    assert deep < shallow + state
