"""Write docs/paper.md and its pictures from the outcomes of a run: python docs/paper.py paper-out

``make paper`` runs the experiments and this.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fastaniso.paper import experiments, load_outcomes, save_pictures, to_markdown

DOCS = Path(__file__).parent
IMAGES = DOCS / "images" / "paper"
MOST_BYTES = 150_000
NOTE = (
    "Written by `make paper` from its run (`paper-out/`); not edited by hand. How to run it on models and checkpoints "
    "of your own: [paper-guide.md](paper-guide.md)."
)


def main(out: Path) -> None:
    """The page, and pictures no larger than they need to be."""
    outcomes = load_outcomes(out, experiments())
    if not outcomes:
        sys.exit(f"{out}: no outcomes; run: fastaniso paper all --out {out}")
    for old in IMAGES.glob("*.png"):
        old.unlink()
    for path in save_pictures(outcomes, IMAGES):
        if path.stat().st_size > MOST_BYTES:
            sys.exit(f"{path} takes {path.stat().st_size} bytes; {MOST_BYTES} are allowed")
    (DOCS / "paper.md").write_text(to_markdown(outcomes, "images/paper", note=NOTE), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
