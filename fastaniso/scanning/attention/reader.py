"""Measure the attentions of a model while it runs: queries, keys and the softmax of each head, no T×T kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from fastaniso.distributed.exchange import gather_json
from fastaniso.models.attention.calls import AttentionCall
from fastaniso.models.attention.masks import UnreadableMaskError
from fastaniso.models.attention.names import AttentionNames, Place
from fastaniso.models.attention.projections import Projections
from fastaniso.models.attention.watch import attention_watched
from fastaniso.models.stacks import Stack
from fastaniso.scanning.attention.positions import GivenPositions, Positions
from fastaniso.scanning.attention.result import AttentionResult, AttentionSite
from fastaniso.scanning.attention.sums import AttentionSums, own_keys
from fastaniso.state import State


class AttentionReader:
    """Reduces each call of an attention as it comes: memory is that of a batch, and sums by head."""

    def __init__(
        self,
        model: nn.Module,
        stacks: Sequence[Stack] = (),
        *,
        backend: str = "auto",
        invalid: str = "raise",
        bins: int = 512,
        score_range: tuple[float, float] = (-32.0, 32.0),
        each: Callable[[str, Tensor, Tensor], None] | None = None,
    ) -> None:
        """For ``model``; sites are named by its ``stacks`` (``block.3``), outside of them by the paths of modules.

        ``each`` is told the path, the queries and the keys of every call that is measured.
        """
        _refuse_compiled(model)
        self.model = model
        self._projections = Projections(model)
        self._names = AttentionNames(model, stacks)
        self._options: dict[str, Any] = {"backend": backend, "bins": bins, "score_range": score_range}
        self._invalid = invalid
        self._each = each
        self._positions: Positions = GivenPositions({})
        self.reset()

    def reset(self) -> None:
        """Forget every call."""
        self._sums: dict[Place, AttentionSums] = {}
        self._refused: dict[Place, str] = {}
        self._has_measured = False

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Watch the model inside the ``with``; it is as it was afterwards, also after an exception."""
        with ExitStack() as stack:
            stack.callback(self.model.register_forward_pre_hook(self._begin).remove)
            stack.enter_context(self._projections.attached())
            stack.enter_context(attention_watched(self.model, self._receive))
            yield

    def begin(self, positions: Positions) -> None:
        """At which positions the next forward passes are measured."""
        self._positions = positions

    def check(self) -> None:
        """``ValueError`` if no attention could ever be measured, with the reason."""
        if not self._has_measured:
            names = self._names.sites(self._refused)
            reasons = {names[place]: reason for place, reason in self._refused.items()}
            raise ValueError(_nothing(type(self.model).__name__, reasons))

    def learn(self, forward: Callable[[], object]) -> None:
        """See from a pass of the model which attentions there are, and what their masks are like; measure nothing."""
        with self.attached():
            forward()
        self.check()
        for sums in self._sums.values():
            sums.clear()

    @property
    def states(self) -> dict[str, State]:
        """What ``AttentionResult.states`` will have."""
        return self._states_of(self._sums)

    def record(self) -> dict[str, Any]:
        """What is known beside the states, as ``add`` takes it; waits for the device."""
        names = self._site_names
        return {
            "sums": {names[place]: sums.record() for place, sums in self._sums.items()},
            "refused": {names[place]: reason for place, reason in self._refused.items()},
        }

    def add(self, record: Mapping[str, Any], states: Callable[[str], Any]) -> None:
        """Also what a reader of the same model had measured: its record, and its states by name; after ``learn``."""
        names = self._site_names
        self._refuse([record])
        for place, sums in self._sums.items():
            site = names[place]
            sums.add(record["sums"][site], {name: states(f"{site}.{name}") for name in sums.states})

    def gather(self, group: Any) -> None:
        """Become what all ranks of a process group have measured, on every rank; after ``learn`` on each."""
        names, records = self._site_names, gather_json(self.record(), group)
        self._refuse(records)
        for place, sums in self._sums.items():
            sums.gather([record["sums"][names[place]] for record in records], group)

    def result(self, *, partial: bool = False) -> AttentionResult:
        """All statistics; waits for the device. ``partial`` leaves out what cannot be normalised, rather than fail.

        Attentions that turned out to be no patterns are among ``refused``, if need be all.
        """
        refused, sums = dict(self._refused), dict(self._sums)
        for place, of_place in self._sums.items():
            if count := of_place.misread:
                del sums[place]
                refused[place] = f"later masks hid other keys than the first ({count:,} times a query and a key)"
        names = self._site_names
        invalid = "omit" if partial else self._invalid
        return AttentionResult(
            sites=tuple(
                AttentionSite.of(names[place], self._names.path(place), of_place, invalid=invalid)
                for place, of_place in sums.items()
            ),
            refused={names[place]: reason for place, reason in refused.items()},
            states=self._states_of(sums),
        )

    @property
    def _site_names(self) -> dict[Place, str]:
        return self._names.sites([*self._sums, *self._refused])

    def _states_of(self, sums: Mapping[Place, AttentionSums]) -> dict[str, State]:
        names = self._site_names
        return {f"{names[p]}.{name}": state for p, s in sums.items() for name, state in s.states.items()}

    def _refuse(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Leave out what any of the records refuses; ``ValueError`` where they are of other attentions than these."""
        names = self._site_names
        for record in records:
            if {*record["sums"], *record["refused"]} != set(names.values()):
                raise ValueError(
                    "attention: some batches call other attentions of the model than the first batch does: such a "
                    "scan is neither shared by ranks nor continued; scan by one process, without resume"
                )
            for place, name in names.items():
                if name in record["refused"]:
                    self._sums.pop(place, None)
                    self._refused.setdefault(place, record["refused"][name])

    def _begin(self, *_: object) -> None:
        self._names.begin()

    def _receive(self, call: AttentionCall) -> None:
        place = self._names.place(call.module)
        taken = self._projections.take(call)
        if place in self._refused:
            return
        sums = self._sums.get(place)
        if sums is None:
            sums = AttentionSums(**self._options)
        (batch, _, queries, _), keys = call.queries.shape, call.keys.shape[2]
        try:
            keep = self._positions.of_queries(place, (batch, queries), keys)
            beside = self._positions.of_keys_beside(place, (batch, keys))
            # A model spread over devices has attentions on several: the small masks follow them.
            sums.update(call, taken, *(None if m is None else m.to(call.queries.device) for m in (keep, beside)))
        except UnreadableMaskError as error:
            self._sums.pop(place, None)
            self._refused[place] = str(error)
        else:
            self._sums[place] = sums
            self._has_measured = True
            if self._each is not None:
                self._each(self._names.path(place), call.queries, own_keys(call, taken))


def _refuse_compiled(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise ValueError(
                f"model: {path or type(module).__name__} is compiled, and its attentions cannot be seen; pass the "
                "model as it was before torch.compile (model._orig_mod), or before model.compile()"
            )


def _nothing(model: str, refused: Mapping[str, str]) -> str:
    if refused:
        site, reason = next(iter(refused.items()))
        return f"attention: none of the {len(refused)} attentions of {model} can be measured: {site}: {reason}"
    return (
        f"attention: {model} made no attention that can be seen: expected modules that call transformers' attention "
        "functions, torch's scaled_dot_product_attention or MultiheadAttention, or that take the softmax of products "
        "of queries and keys, scaled and masked (relative positions within the scores, as of DeBERTa and XLNet, are "
        "not followed; a model without attention, such as a CNN, has no queries and keys)"
    )
