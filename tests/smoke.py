"""What must work where only the wheel and its base dependencies are installed; run by `make package`."""

import sys

import torch

before = set(sys.modules)

import fastaniso  # noqa: E402

heavy = {"triton", "transformers", "matplotlib", "safetensors", "rich", "typer", "sklearn"}
imported = heavy & {name.partition(".")[0] for name in set(sys.modules) - before}
assert not imported, f"import fastaniso took {imported}"
assert fastaniso.__file__ is not None
assert "site-packages" in fastaniso.__file__, "the wheel, not the checkout, is what is tested here"

rows = torch.rand(1000, 64)
assert abs(fastaniso.mean_cosine(rows) - 0.75) < 0.02, "rows uniform on [0, 1) have a mean cosine near 3/4"
assert fastaniso.backend_for(rows) == "cpu"
print(fastaniso.describe(rows))
