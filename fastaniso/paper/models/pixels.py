"""What untrained models of images see: no hub says how their images are to be prepared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pixels:
    """An image processor, called as transformers' own: ``edge`` × ``edge`` pixels between −1 and 1."""

    edge: int

    def __call__(self, *, images: Any, return_tensors: str = "pt") -> dict[str, Any]:
        """``pixel_values`` (1, 3, edge, edge) of one image of Pillow's."""
        import numpy as np
        import torch

        small = np.array(images.resize((self.edge, self.edge), resample=2), dtype=np.float32)
        return {"pixel_values": torch.from_numpy(small / 127.5 - 1).permute(2, 0, 1)[None]}
