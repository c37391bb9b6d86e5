"""Find the stacks of blocks of any Transformer by structure, never by a path that a release may change.

A stack is an outermost ``ModuleList`` whose members pass one state on: each takes a ``[sequences, tokens, d]`` tensor
and gives one of the same shape, which the next takes. That cannot be read off the modules alone, so one short forward
pass is watched. The watch also counts how often shared blocks are called (ALBERT) and finds the final norm: the norm
outside of the blocks that takes the last block's output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Stack:
    """Blocks that pass one hidden state on, and the norm after them.

    ``prefix`` goes before the names of the sites (``"encoder."`` in an encoder–decoder, else usually empty);
    ``depth`` counts block calls in one forward pass, which is more than ``len(blocks)`` where blocks are shared.
    """

    prefix: str
    path: str
    blocks: tuple[nn.Module, ...]
    depth: int
    dim: int
    final_norm: nn.Module | None

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the sites in the order of the flow."""
        names = ["embedding", *(f"block.{i}" for i in range(self.depth))]
        if self.final_norm is not None:
            names += ["pre_final_norm", "post_final_norm"]
        return tuple(self.prefix + name for name in names)


@dataclass(frozen=True)
class Anatomy:
    """The stacks of a model, and a sentence on each stack that was left out."""

    stacks: tuple[Stack, ...]
    left_out: tuple[str, ...]

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of all sites."""
        return tuple(site for stack in self.stacks for site in stack.sites)

    @property
    def same_as(self) -> dict[str, str]:
        """Sites that are another site's state by a second name: what goes into a final norm left the last block."""
        return {
            f"{stack.prefix}pre_final_norm": f"{stack.prefix}block.{stack.depth - 1}"
            for stack in self.stacks
            if stack.final_norm is not None
        }


@dataclass
class _Trace:
    """What the members of one ModuleList took and gave, in the order of the calls."""

    path: str
    members: tuple[nn.Module, ...]
    taken: list[Tensor | None] = field(default_factory=list)
    given: list[Tensor | None] = field(default_factory=list)

    def passes_one_state(self) -> bool:
        """Every call keeps the shape, and at least half of the calls take what the call before gave.

        Half, because some models change the state between two blocks (DeBERTa's convolution after the first).
        """
        pairs = list(zip(self.taken, self.given, strict=True))
        if not pairs or any(x is None or y is None or x.shape != y.shape for x, y in pairs):
            return False
        chained = sum(_same(given, taken) for given, taken in zip(self.given[:-1], self.taken[1:], strict=True))
        return 2 * chained >= len(pairs) - 1


def find_stacks(model: nn.Module, forward: Callable[[], Any], *, tokens: torch.Size) -> Anatomy:
    """Find the stacks of ``model`` by watching ``forward()``, one pass over ids of shape ``tokens``."""
    traces = [
        _Trace(path, tuple(module))
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and all(any(m.children()) for m in module)
    ]
    norms: list[tuple[nn.Module, Tensor | None]] = []
    handles = []
    try:
        for trace in traces:
            for member in dict.fromkeys(trace.members):
                handles.append(member.register_forward_hook(_record(trace), with_kwargs=True))
        for module in model.modules():
            if "norm" in type(module).__name__.lower():
                handles.append(
                    module.register_forward_hook(
                        lambda m, args, kwargs, _: norms.append((m, taken_state(args, kwargs))), with_kwargs=True
                    )
                )
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    outermost: list[_Trace] = []
    inside: set[nn.Module] = set()
    for trace in traces:  # named_modules() gives a parent before its children
        if trace.passes_one_state() and not inside.intersection(trace.members):
            outermost.append(trace)
            inside.update(module for member in trace.members for module in member.modules())
    readable = [trace for trace in outermost if _state_shape(trace)[:2] == tokens]
    if not readable:
        raise ValueError(
            f"model: found no stack of blocks in {type(model).__name__}: expected a ModuleList whose members pass on a "
            f"[sequences, tokens, d] state; " + (_left_out(outermost[0], tokens) if outermost else "it has none")
        )
    prefixes = _prefixes([trace.path for trace in readable])
    stacks = tuple(
        Stack(
            prefix=prefix,
            path=trace.path,
            blocks=tuple(dict.fromkeys(trace.members)),
            depth=len(trace.given),
            dim=_state_shape(trace)[2],
            final_norm=next((n for n, x in norms if n not in inside and _same(x, trace.given[-1])), None),
        )
        for prefix, trace in zip(prefixes, readable, strict=True)
    )
    return Anatomy(stacks, tuple(_left_out(trace, tokens) for trace in outermost if trace not in readable))


def given_state(output: Any) -> Any:
    """The hidden state that a block gave: a tensor (transformers 5), or the first of a tuple (transformers 4)."""
    return output[0] if isinstance(output, tuple) and output else output


def taken_state(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The hidden state that a module took: its first floating-point tensor of three axes."""
    for value in (*args, *kwargs.values()):
        if _is_state(value):
            assert isinstance(value, Tensor)
            return value
    return None


def _is_state(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 3 and value.is_floating_point()


def _record(trace: _Trace) -> Callable[..., None]:
    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = given_state(output)
        trace.taken.append(taken_state(args, kwargs))
        trace.given.append(given if _is_state(given) else None)

    return record


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two tensors are the same state: the trace keeps all of them alive, so no address is used twice."""
    return a is not None and b is not None and a.data_ptr() == b.data_ptr() and a.shape == b.shape


def _state_shape(trace: _Trace) -> torch.Size:
    state = trace.given[-1]
    assert state is not None
    return state.shape


def _left_out(trace: _Trace, tokens: torch.Size) -> str:
    return (
        f"{trace.path} passes states of shape {tuple(_state_shape(trace))} for ids of shape {tuple(tokens)}: "
        "its positions are not the tokens, so no mask fits them"
    )


def _prefixes(paths: list[str]) -> list[str]:
    """Nothing for one stack; encoder./decoder. where the paths say so; else the path of the module that holds it."""
    if len(paths) == 1:
        return [""]
    for names in (("encoder", "decoder"), ("decoder", "encoder")):
        if len(paths) == 2 and all(name in path.split(".") for name, path in zip(names, paths, strict=True)):
            return [f"{name}." for name in names]
    holders = [path.rpartition(".")[0] for path in paths]
    return [f"{name}." for name in (holders if len(set(holders)) == len(holders) and all(holders) else paths)]
