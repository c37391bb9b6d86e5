"""Which positions of a site's states count: what the caller says, or the ``attention_mask`` the model was given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fastaniso.probing.places import Place

ARGUMENT, OF_DECODER = "attention_mask", "decoder_attention_mask"

_OTHER_INPUTS = {"pixel_values", "pixel_values_videos", "input_values", "input_features"}

_REMEDY = (
    "pass the positions of this site with probe.mask(keep) before each pass of the model, or probe(..., mask=None) to "
    "count every position"
)


@dataclass(frozen=True)
class Giver:
    """The outermost module around a site whose ``forward`` takes ``argument``, and where among its arguments."""

    place: Place
    argument: str
    position: int

    def take(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Given | None:
        """The mask of a call, None where it has none."""
        mask = kwargs.get(self.argument, args[self.position] if self.position < len(args) else None)
        if mask is None:
            return None
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            got = f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(
                f"mask: {self.argument} of {type(self.place.inner).__name__} is no mask of positions "
                f"[sequences, positions], but of {got}; {_REMEDY}"
            )
        frames = getattr(self.place.inner, "_get_feature_vector_attention_mask", None)
        return Given(mask.detach() != 0, self.argument, kwargs.get("past_key_values") is not None, frames)


@dataclass(frozen=True)
class Given:
    """A bool mask of positions, what gave it, and whether positions before these may be in a cache.

    ``frames``, of a model that reads sounds, makes a mask of samples one of frames.
    """

    keep: Tensor
    source: str
    cached: bool = False
    frames: Callable[..., Tensor] | None = None

    def fit(self, hidden: Tensor) -> Tensor | None:
        """The mask of the rows of ``hidden``, beside them; None where a row is a whole sequence.

        Fits states of the same positions, their rows in one axis, the last positions of a cache, and frames of sounds;
        a model spread over devices has states on several, and the small mask follows them.
        """
        rows, keep = hidden.shape[:-1], self.keep
        if rows != keep.shape and self.cached and rows[:-1] == keep.shape[:-1] and rows[-1] < keep.shape[-1]:
            keep = keep[:, keep.shape[1] - rows[1] :]
        elif rows != keep.shape and len(rows) == 1 and rows[0] == keep.numel():
            keep = keep.flatten()
        elif rows != keep.shape and len(rows) == 1 and rows[0] == keep.shape[0]:
            return None
        elif rows != keep.shape and self.frames is not None and rows[:-1] == keep.shape[:-1]:
            # The encoder comes before an adapter, which has a length of its own.
            takes = inspect.signature(self.frames).parameters
            options = {"add_adapter": False} if "add_adapter" in takes else {}
            keep = self.frames(rows[-1], keep.long(), **options).bool()
        if rows != keep.shape:
            raise ValueError(
                f"mask: {self.source} of shape {tuple(keep.shape)} does not fit states of shape "
                f"{tuple(hidden.shape)}; {_REMEDY}"
            )
        return keep.to(hidden.device, non_blocking=True)


def giver_of(places: Mapping[str, Place], site: Place) -> Giver | None:
    """The outermost module around ``site`` that is given masks of positions; the model itself where it is the site.

    A tower inside that reads images or sounds has positions of its own, of which a mask of tokens says nothing.
    """
    parts, giver = site.parts, None
    for depth in range(max(len(parts), 1)):
        around = places[".".join(parts[:depth])]
        names = _arguments(around.inner)
        reads_other = not {"input_ids", "inputs_embeds"}.intersection(names) and not _OTHER_INPUTS.isdisjoint(names)
        if giver is not None and reads_other:
            giver = None
        if giver is None and ARGUMENT in names:
            decoder = OF_DECODER in names and any(part.startswith("decoder") for part in parts[depth:])
            argument = OF_DECODER if decoder else ARGUMENT
            giver = Giver(around, argument, names.index(argument))
    return giver


def _arguments(module: nn.Module) -> list[str]:
    return list(inspect.signature(module.forward).parameters)
