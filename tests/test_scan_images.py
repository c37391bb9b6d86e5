"""Images through a scan: patches alone count, feature maps are rows of channels, bad files are skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_senses
import torch
from torch import Tensor, nn

import fastaniso
from fastaniso.models.image_processor import TorchImageProcessor
from fastaniso.models.loading import load_image_processor
from fastaniso.scanning import ScanResult
from fastaniso.sources import as_images

pillow: Any = pytest.importorskip("PIL.Image", reason="images need the package pillow")


def noise(height: int, width: int, seed: int) -> Any:
    generator = np.random.default_rng(seed)
    return pillow.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


PICTURES = [noise(40 + 3 * i, 50, i) for i in range(5)]


def scan(family: str, images: Any = None, **options: Any) -> ScanResult:
    model, processor = tiny_senses.model(family), tiny_senses.image_processor()
    return fastaniso.scan(model, PICTURES if images is None else images, processor=processor, **options)


def states_of(family: str) -> tuple[Tensor, ...]:
    pixels = tiny_senses.image_processor()(images=PICTURES, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        states: tuple[Tensor, ...] = tiny_senses.model(family)(pixels, output_hidden_states=True).hidden_states
    return states


@pytest.mark.parametrize("family", sorted(tiny_senses.IMAGES))
def test_patches_alone_are_measured(family: str) -> None:
    result = scan(family, batch_size=2)
    prefix = sum(tiny_senses.PREFIX[family].values())
    assert result.tokens.kept == 16 * len(PICTURES)
    assert result.tokens.dropped == {name: n * len(PICTURES) for name, n in tiny_senses.PREFIX[family].items()}
    assert result["block.0"].masked == result.tokens.dropped
    assert (result.tokens.unit, result.tokens.item) == ("patches", "images")
    groups = torch.arange(len(PICTURES)).repeat_interleave(16)
    for site, states in zip(("embedding", "block.0", "block.1"), states_of(family), strict=False):
        d, patches = result[site].description, states[:, prefix:].flatten(0, 1)
        expected = fastaniso.describe(patches.double(), groups=groups, backend="reference")
        # float32 forward passes of other batch sizes differ by a few ε a layer
        assert d.mean_cosine == pytest.approx(expected.mean_cosine, rel=1e-4, abs=1e-6)
        assert d.cosine_std == pytest.approx(expected.cosine_std, rel=1e-4)
        assert result[site].within_sequence == pytest.approx(expected.within_groups, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("family", sorted(tiny_senses.CONVOLUTIONAL))
def test_positions_of_feature_maps_are_rows(family: str) -> None:
    # A channel that is zero at some place is no mistake: a row that is zero everywhere is left out.
    result = scan(family, batch_size=2, invalid="omit")
    assert result.tokens.unit == "positions"
    for site, maps in zip(("embedding", "block.0", "block.1", "block.2"), states_of(family), strict=True):
        rows = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
        expected = fastaniso.describe(rows.double(), backend="reference", invalid="omit")
        d = result[site].description
        assert (d.n, d.dim) == (expected.n, maps.shape[1])
        assert d.mean_cosine == pytest.approx(expected.mean_cosine, rel=1e-4, abs=1e-6)


def test_overlapping_patches_in_stages() -> None:
    """MiT, the encoder of SegFormer: each stage is a stack, and 45 × 50 pixels make 12 × 13, then 6 × 7 patches."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 2],
        hidden_sizes=[8, 12],
        num_attention_heads=[1, 2],
        strides=[4, 2],
        patch_sizes=[7, 3],
        sr_ratios=[2, 1],
    )
    model = transformers.SegformerModel(config).eval()
    pixels = torch.randn(3, 3, 45, 50, generator=torch.Generator().manual_seed(0))
    result = fastaniso.scan(model, [{"pixel_values": pixels}])
    assert [len(sites) for sites in result.stacks.values()] == [4, 5]  # each with a norm after its blocks
    counts = [{site.description.n for site in sites} for sites in result.stacks.values()]
    assert counts == [{3 * 12 * 13}, {3 * 6 * 7}]
    with torch.no_grad():
        last = model(pixels).last_hidden_state.permute(0, 2, 3, 1).reshape(-1, 12)
    expected = fastaniso.describe(last.double(), backend="reference").mean_cosine
    end = result.sites[-1].description.mean_cosine
    assert end == pytest.approx(expected, rel=1e-4)


def test_a_model_made_here_takes_the_processor_of_a_folder(tmp_path: Path) -> None:
    folder = tiny_senses.saved("vit", tmp_path / "vit")
    given = fastaniso.scan(tiny_senses.model("vit"), PICTURES, processor=str(folder))
    named = fastaniso.scan(folder, PICTURES, device="cpu")
    for site in named.sites:
        assert given[site.site].description.mean_cosine == site.description.mean_cosine


class Residual(nn.Module):
    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.convolution = nn.Sequential(nn.Conv2d(channels, wider, 3, padding=1), nn.BatchNorm2d(wider), nn.Tanh())
        self.shortcut = nn.Conv2d(channels, wider, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.convolution(maps) + self.shortcut(maps)


class InTheStyleOfTorchvision(nn.Module):
    """Stages are attributes, the head is composed as well; nothing is a ModuleList."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.layer1 = nn.Sequential(Residual(8, 8), Residual(8, 8))
        self.layer2 = nn.Sequential(Residual(8, 12), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.Flatten(), nn.LazyLinear(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer2(self.layer1(self.stem(x))))


def test_stages_that_are_attributes() -> None:
    torch.manual_seed(0)
    model, pixels = InTheStyleOfTorchvision().eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        model(pixels)
        first = model.layer1(model.stem(pixels))
        rows = [first, model.layer2(first)]
    result = fastaniso.scan(model, [{"x": pixels}])
    assert [site.site for site in result.sites] == ["embedding", "block.0", "block.1"]
    for site, maps in zip(("block.0", "block.1"), rows, strict=True):
        expected = fastaniso.mean_cosine(maps.permute(0, 2, 3, 1).flatten(0, 2).double(), backend="reference")
        assert result[site].description.mean_cosine == pytest.approx(expected, rel=1e-5)


def test_a_row_of_layers() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 6, 3), nn.Tanh())
    result = fastaniso.scan(nn.Sequential(layers, nn.Flatten()), [{"input": torch.randn(2, 3, 12, 12)}])
    assert [(site.site, site.description.dim) for site in result.sites] == [
        ("embedding", 3),
        ("block.0", 8),
        ("block.1", 8),
        ("block.2", 6),
        ("block.3", 6),
    ]


def test_a_folder_of_photographs(tmp_path: Path) -> None:
    folder = tiny_senses.write_photos(tmp_path / "photos")
    (folder / "further").mkdir()
    (folder / "photo-0.png").rename(folder / "further" / "photo-0.png")
    result = fastaniso.scan(tiny_senses.saved("dinov2", tmp_path / "model"), folder)
    assert result.tokens.sequences == 10
    assert result.tokens.skipped == {}
    # Patches of one photograph are alike.
    assert all(site.within_sequence > site.across_sequences + 0.1 for site in result.sites)
    assert "ViTImageProcessor" in result.provenance["image_processor"]


def test_bad_images_are_skipped_and_counted(tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:900])
    (tmp_path / "noise.jpg").write_bytes(bytes(range(256)))
    pillow.fromarray(np.full((40, 40), 40_000, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "README.html").write_text("photographs")
    (tmp_path / ".hidden.png").write_bytes(b"")
    result = scan("vit", tmp_path)
    reasons = {reason.split(",")[0]: count for reason, count in result.tokens.skipped.items()}
    assert reasons.pop("mode I;16") == 1
    assert sum(n for reason, n in reasons.items() if reason.startswith("unreadable")) == 2
    assert sum(n for reason, n in reasons.items() if reason.startswith("neither")) == 1
    assert result.tokens.sequences == 1
    assert any("cut.png" in note for note in result.notes)
    with pytest.raises(ValueError, match=r"data: no patches in .*skipped: 1 × unreadable"):
        scan("vit", tmp_path / "cut.png")


def test_grey_turned_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    wide = noise(20, 60, 1)
    exif = pillow.Exif()
    exif[0x0112] = 6  # turned by a quarter
    wide.save(tmp_path / "1.jpg", exif=exif)
    wide.convert("L").save(tmp_path / "2.png")
    wide.convert("RGBA").save(tmp_path / "10.png")
    images = list(as_images(tmp_path))
    assert [(Path(image.name).name, image.picture.size) for image in images] == [
        ("1.jpg", (20, 60)),
        ("2.png", (60, 20)),
        ("10.png", (60, 20)),
    ]
    assert {image.picture.mode for image in images} == {"RGB"}


def test_arrays_and_images_of_several_sizes() -> None:
    processor = tiny_senses.image_processor()
    processor.do_resize = False
    arrays = [np.asarray(noise(*size, seed=i)) for i, size in enumerate(((32, 32), (32, 32), (32, 48), (5, 5)))]
    model = tiny_senses.model("dinov2")  # which interpolates its positions
    result = fastaniso.scan(model, arrays, processor=processor, batch_size=2)
    assert result.tokens.batches == 2
    assert result.tokens.kept == 16 + 16 + 24
    assert list(result.tokens.skipped.values()) == [1]
    with pytest.raises(TypeError, match=r"expected images of Pillow or uint8 arrays .* got ndarray of uint8 \(4,\)"):
        list(as_images([np.zeros(4, np.uint8)]))


@pytest.mark.parametrize("size", [{"height": 32, "width": 24}, {"shortest_edge": 36}])
def test_settings_carried_out_with_torch_give_what_the_processor_gives(size: dict[str, int]) -> None:
    from transformers import BitImageProcessor

    settings = {"size": size, "do_center_crop": "shortest_edge" in size, "crop_size": {"height": 32, "width": 32}}
    processor = BitImageProcessor(**settings)
    ours = TorchImageProcessor(processor.to_dict(), reason="a test")
    photo = tiny_senses.photos()[0]
    expected = processor(images=photo, return_tensors="pt")["pixel_values"]
    found = ours(images=photo)["pixel_values"]
    assert found.shape == expected.shape
    # Pillow rounds to 256 levels and clips after each of two passes; a level is 1/255/std, about 0.015 at std .27.
    assert (found - expected).abs().max() < 4 * 0.015
    assert (found - expected).abs().mean() < 0.015


def test_a_processor_that_cannot_load_is_replaced_and_said(tmp_path: Path) -> None:
    if _has_torchvision():
        pytest.skip("with torchvision every processor loads")
    folder = tiny_senses.saved("dinov3", tmp_path / "model")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["image_processor_type"] = "DINOv3ViTImageProcessorFast"
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    assert isinstance(load_image_processor(folder), TorchImageProcessor)
    result = fastaniso.scan(folder, PICTURES)
    assert any("prepared with torch by the settings" in note for note in result.notes)
    assert result.provenance["image_processor"] == "TorchImageProcessor"
    settings["do_pad"] = True
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="processor: do_pad needs the processor of transformers"):
        load_image_processor(folder)


def test_a_model_without_a_processor_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    tiny_senses.model("vit").save_pretrained(tmp_path)
    with pytest.raises(
        fastaniso.models.ModelNotFoundError, match=r"holds no preprocessor_config\.json; give processor="
    ):
        fastaniso.scan(tmp_path, PICTURES)
    with pytest.raises(ValueError, match="processor: a model given as a module needs its processor"):
        fastaniso.scan(tiny_senses.model("vit"), PICTURES)


def test_a_model_of_text_is_told() -> None:
    with pytest.raises(ValueError, match="model: expected a model of images, whose forward takes pixel_values"):
        fastaniso.scan(tiny_senses.model("whisper"), PICTURES, processor=tiny_senses.image_processor())
    with pytest.raises(ValueError, match="chunk_words: means nothing for images, got 3"):
        scan("vit", chunk_words=3)


def _has_torchvision() -> bool:
    from importlib.util import find_spec

    return find_spec("torchvision") is not None
