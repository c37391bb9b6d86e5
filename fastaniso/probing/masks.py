"""Which positions of a site's states count: what the caller says, or the ``attention_mask`` the model was given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fastaniso.probing.places import Place

ARGUMENT, OF_DECODER = "attention_mask", "decoder_attention_mask"

_TOKENS = {"input_ids", "inputs_embeds"}
_OTHER_INPUTS = {"pixel_values", "pixel_values_videos", "input_values", "input_features"}

_REMEDY = (
    "pass the positions of this site with probe.mask(keep) before each pass of the model, or probe(..., mask=None) to "
    "count every position"
)


@dataclass(frozen=True)
class Giver:
    """A module around a site whose ``forward`` takes ``argument``, and where among its arguments."""

    place: Place
    argument: str
    position: int

    def take(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Given | None:
        """What a call was given, None where that is nothing."""
        mask = kwargs.get(self.argument, args[self.position] if self.position < len(args) else None)
        if mask is None:
            return None
        frames = getattr(self.place.inner, "_get_feature_vector_attention_mask", None)
        source = f"{self.argument} of {type(self.place.inner).__name__}"
        # Keys and values of earlier calls, by the names of transformers before 5.24 and since.
        cached = any(kwargs.get(name) is not None for name in ("cache", "past_key_values"))
        return Given(mask, self.argument, source, cached, frames)


@dataclass(frozen=True)
class Given:
    """A mask, its short name and where it is from, and whether positions before these may be in a cache.

    ``frames``, of a model that reads sounds, makes a mask of samples one of frames.
    """

    mask: Any
    name: str
    source: str
    cached: bool = False
    frames: Callable[..., Tensor] | None = None

    @cached_property
    def keep(self) -> Tensor:
        """The mask as bool: True counts a position."""
        mask = self.mask
        if isinstance(mask, Tensor) and mask.dtype == torch.bool:
            return mask.detach()
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            raise ValueError(f"mask: {self.source} is no mask [sequences, positions], but {_words(mask)}; {_REMEDY}")
        return mask.detach() != 0

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
                f"mask: {self.source}, {_words(keep)}, does not fit states of shape {tuple(hidden.shape)}; {_REMEDY}"
            )
        return keep.to(hidden.device, non_blocking=True)


def givers_of(places: Mapping[str, Place], site: Place) -> tuple[Giver, ...]:
    """The modules around ``site`` that are given masks, the outermost first; the model itself where it is the site.

    A tower inside that reads images or sounds has positions of its own, of which a mask of tokens says nothing.
    """
    parts = site.parts
    givers: list[Giver] = []
    for depth in range(max(len(parts), 1)):
        around = places[".".join(parts[:depth])]
        names = list(inspect.signature(around.inner.forward).parameters)
        if not _TOKENS.intersection(names) and not _OTHER_INPUTS.isdisjoint(names):
            givers.clear()
        if ARGUMENT in names:
            decoder = OF_DECODER in names and any(part.startswith("decoder") for part in parts[depth:])
            argument = OF_DECODER if decoder else ARGUMENT
            givers.append(Giver(around, argument, names.index(argument)))
    return tuple(givers)


def _words(value: Any) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
