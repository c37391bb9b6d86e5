"""The call: which modules of which model, and what is taken from their outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from fastaniso.probing.live import Probe
from fastaniso.probing.outputs import check_channels
from fastaniso.probing.selection import choose


def probe(
    model: nn.Module,
    sites: Any = None,
    *,
    gram: bool | str = False,
    metrics: Any = None,
    mask: str | None = "model",
    channels: str | None = None,
    select: Callable[[Any], Any] | None = None,
    every: int = 1,
    eager: bool | None = None,
    backend: str = "auto",
    invalid: str = "raise",
) -> Probe:
    """Statistics of hidden states as they pass, exact over the ordered pairs i ≠ j of all counted positions of a site.

    ::

        with fastaniso.probe(model) as probe:
            model(**batch)
        print(probe.results())

    Each site's output is reduced to sums in float64 on its device when it passes; nothing is kept, changed or waited
    for. Memory is O(d) a site (O(d²) with ``gram``). ``results`` brings the numbers to the host. The model may be
    training, in half precision, under autocast, compiled, or wrapped (DataParallel, DDP, FSDP): names are those of the
    modules inside. What gradient checkpointing calls again during backward is not counted again; a module that is
    called several times in a pass adds every call to its site.

    Args:
        model: Any module.
        sites: Names or patterns (``"encoder.layer.*"``: ``*`` is one part between dots, ``**`` any), classes, modules,
            or several of these; or a dict of one module each by a name of your own. By default the blocks, found by
            structure: ``embedding``, what the first takes, and ``block.i``; of several stacks after a prefix.
        gram: Also the std of the cosine ("unit"), spectral scores ("raw") or both (True), O(n d²).
        metrics: Names of metrics of linear sums and scatters, as ``describe`` takes them.
        mask: "model": positions count where the ``attention_mask`` of the outermost module around a site says so (of
            decoders, ``decoder_attention_mask``), all of them where it was given none; None: all positions.
            ``probe.mask`` goes before either.
        channels: "first": rows of ``(B, C, ...)`` are its positions, copied unless stored channels-last; "last": of
            ``(B, ..., C)``. Three axes are ``(B, T, d)`` and need no word; of four, one has to be given.
        select: A function that takes a site's output and gives its hidden state, where that is not a tensor, the first
            of a tuple, or ``last_hidden_state``.
        every: Measure the first of every so many calls of the model; the others run without hooks on the sites.
        eager: Run compiled parts without their compiled code while hooks are on, because that code does not see hooks;
            by default where the model holds any. Say True where a function around the model is compiled.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise": rows that are zero or hold NaN or Inf make ``results`` raise; "omit": they are counted.

    Raises:
        ValueError: No module is meant by a site (with the nearest names), two sites are one module, or, from the call
            of the model, an output is no hidden state or a mask does not fit it. The hooks are off by then.
    """
    check_channels(channels)
    return Probe(
        choose(model, sites, maps=channels == "first"),
        gram=gram,
        metrics=metrics,
        mask=mask,
        channels=channels,
        select=select,
        every=every,
        eager=eager,
        backend=backend,
        invalid=invalid,
    )
