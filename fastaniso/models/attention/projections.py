"""What the projections of an attention give before positions are turned into them (RoPE): queries and keys as learned.

Projections are found by the names that models use, alone (``q_proj``, ``query``, …), or fused into one (``c_attn``,
``query_key_value``, ``qkv_proj``, …). A rotation keeps every length, so a fused output is cut up by the one layout
under which the lengths of its queries and keys are those that reach the attention: names decide nothing about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastaniso.models.attention.calls import AttentionCall

SEPARATE = (
    ("q_norm", "k_norm"),
    ("query_norm", "key_norm"),
    ("query_layernorm", "key_layernorm"),
    ("q_layernorm", "k_layernorm"),
    ("q_proj", "k_proj"),
    ("query", "key"),
    ("q_lin", "k_lin"),
    ("query_proj", "key_proj"),
    ("linear_q", "linear_k"),
    ("to_q", "to_k"),
    ("q", "k"),
)
"""Names of what gives queries and keys: norms first, for they come after the projections."""

FUSED = ("c_attn", "query_key_value", "qkv_proj", "qkv", "Wqkv", "in_proj")
"""Names of projections that give queries, keys and values in one."""

_AGREES = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far lengths may differ: a rotation in the dtype of the model rounds each number a few times."""


@dataclass(frozen=True, eq=False)
class Projected:
    """``queries`` (B, H, T, d) and ``keys`` (B, G, S, d), S those that are new in a call with a cache."""

    queries: Tensor
    keys: Tensor


@dataclass(frozen=True, eq=False)
class Taken:
    """What is known of a call beside what the attention was given; None where it is not known.

    ``before`` are queries and keys before their rotation, where they are rotated at all (``rotated``); ``crosses`` says
    whether keys come from other states than queries. ``key_heads`` are those that the projections give, fewer than the
    call has where keys were copied for the queries that share them.
    """

    before: Projected | None
    rotated: bool | None
    crosses: bool | None
    key_heads: int


@dataclass
class _Outputs:
    """What the projections of one attention module took and gave since its last call."""

    taken: dict[str, Tensor]
    given: dict[str, Tensor]


class Projections:
    """The projections of all attention modules of a model; their outputs are held until the attention is called."""

    def __init__(self, model: nn.Module) -> None:
        """Find them; ``attached`` watches them."""
        self._of: dict[nn.Module, _Outputs] = {}
        self._names: dict[nn.Module, tuple[str, ...]] = {}
        self._layouts: dict[nn.Module, tuple[_Layout | None, bool | None]] = {}
        for module in model.modules():
            children = dict(module.named_children())
            pairs = [name for pair in SEPARATE if all(name in children for name in pair) for name in pair]
            names = (*pairs, *(name for name in FUSED if name in children))
            if names:
                self._names[module] = names

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Watch the projections inside the ``with``."""
        handles = []
        try:
            for module, names in self._names.items():
                for name in names:
                    child = module.get_submodule(name)
                    handles.append(child.register_forward_hook(self._hold(module, name)))
                handles.append(module.register_forward_hook(self._drop, always_call=True))
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._of.clear()

    def take(self, call: AttentionCall) -> Taken:
        """What the projections gave for a call; looks for their layout, which waits for the device, the first time."""
        outputs = self._of.pop(call.module, None)
        if outputs is None:
            return Taken(None, None, None, call.keys.shape[1])
        layout, rotated = self._layouts.get(call.module) or _find_layout(outputs.given, call)
        if call.keys.shape[2] > 1:  # at the first position of all a rotation does nothing
            self._layouts[call.module] = layout, rotated
        return Taken(
            before=layout.cut(outputs.given, call.queries) if layout is not None and rotated else None,
            rotated=rotated,
            crosses=_crosses(outputs.taken),
            key_heads=call.keys.shape[1] if layout is None else layout.key_heads,
        )

    def _hold(self, module: nn.Module, name: str) -> Any:
        def hold(child: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and args and isinstance(args[0], Tensor):
                outputs = self._of.setdefault(module, _Outputs({}, {}))
                outputs.taken[name], outputs.given[name] = args[0].detach(), output.detach()

        return hold

    def _drop(self, module: nn.Module, *_: object) -> None:
        self._of.pop(module, None)


@dataclass(frozen=True)
class _Layout:
    """Where queries and keys lie: in outputs of two names, or in one, cut by ``form``."""

    queries: str
    keys: str
    form: str
    key_heads: int

    def cut(self, given: dict[str, Tensor], attended: Tensor) -> Projected | None:
        """Views of the outputs as heads, as many as the ``attended`` queries; None if they do not have the size."""
        if self.queries not in given or self.keys not in given:
            return None
        sequences, heads, length, dim = attended.shape
        groups = self.key_heads
        q, k = given[self.queries], given[self.keys]
        try:
            if self.form == "separate":
                queries = q.reshape(sequences, length, heads, dim)
                keys = k.reshape(sequences, -1, groups, dim)
            elif self.form == "blocks":
                queries = q[..., : heads * dim].reshape(sequences, length, heads, dim)
                keys = q[..., heads * dim : (heads + groups) * dim].reshape(sequences, length, groups, dim)
            else:
                # For each group of queries: the queries, their key, their value.
                by_group = q.reshape(sequences, length, groups, heads // groups + 2, dim)
                queries = by_group[..., :-2, :].reshape(sequences, length, heads, dim)
                keys = by_group[..., -2, :]
        except RuntimeError:  # another number of elements
            return None
        return Projected(queries.transpose(1, 2), keys.transpose(1, 2))


def _find_layout(given: dict[str, Tensor], call: AttentionCall) -> tuple[_Layout | None, bool | None]:
    """The first layout whose queries and keys are those of the call but for a rotation, and whether there is one."""
    for layout in _layouts(given, call):
        projected = layout.cut(given, call.queries)
        if projected is None or projected.keys.shape[2] > call.keys.shape[2]:
            continue
        shared = call.keys.shape[1] // layout.key_heads
        keys = call.keys[:, ::shared, -projected.keys.shape[2] :]
        if shared > 1 and not torch.equal(call.keys, call.keys[:, ::shared].repeat_interleave(shared, 1)):
            continue
        if _same_lengths(projected.queries, call.queries) and _same_lengths(projected.keys, keys):
            if not (_same(projected.queries, call.queries) and _same(projected.keys, keys)):
                return layout, True
            # A norm may come after the rotation, and then tells nothing of it.
            return layout, None if "norm" in layout.queries else False
    return None, None


def _layouts(given: dict[str, Tensor], call: AttentionCall) -> Iterator[_Layout]:
    """Layouts with as many heads of keys as their sizes say."""
    heads, dim, held = call.queries.shape[1], call.queries.shape[3], call.keys.shape[1]

    def fits(groups: int) -> bool:
        return groups > 0 and held % groups == 0 and heads % groups == 0

    for q, k in SEPARATE:
        if q in given and k in given:
            # The output of a norm of each head has the heads as an axis.
            groups = given[k].shape[-1] // dim if given[k].shape[-1] > dim else held
            if fits(groups):
                yield _Layout(q, k, "separate", groups)
    for name in FUSED:
        if name in given and fits(groups := (given[name].shape[-1] // dim - heads) // 2):
            yield _Layout(name, name, "blocks", groups)
            yield _Layout(name, name, "grouped", groups)


def _same_lengths(before: Tensor, after: Tensor) -> bool:
    """Whether all vectors have the lengths they had, up to one factor for all; zeros, as padding may be, stay zero."""
    a, b = (torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64) for x in (before, after))
    factor = (b / a)[a > 0].nanmedian()  # nan where all are zero, and then nothing agrees
    return bool(((b - factor * a).abs() <= _AGREES[after.dtype] * factor * a).all())


def _same(before: Tensor, after: Tensor) -> bool:
    """Whether the vectors are the same, up to one factor for all."""
    x, y = before.double(), after.double()
    factor = (x * y).sum() / x.square().sum().clamp(min=1e-300)
    return bool(torch.linalg.vector_norm(y - factor * x) <= _AGREES[after.dtype] * torch.linalg.vector_norm(y))


def _crosses(taken: dict[str, Tensor]) -> bool | None:
    for q, k in (*SEPARATE, ("q_attn", "c_attn")):
        if q in taken and k in taken and "norm" not in q:
            return taken[q].data_ptr() != taken[k].data_ptr()
    return False if any(name in taken for name in FUSED) else None
