"""Hook any module, reduce each site's output to a state at once, and take the hooks off without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from threading import Lock
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fastaniso.accumulator import SCATTERS, Accumulator, scatters_for
from fastaniso.probing.gathering import gathered
from fastaniso.probing.hooks import Hooks, recomputing
from fastaniso.probing.masks import Given, givers_of
from fastaniso.probing.outputs import hidden_state
from fastaniso.probing.places import matches
from fastaniso.probing.result import ProbeResult
from fastaniso.probing.selection import Selection
from fastaniso.result import Description
from fastaniso.state import Gram, Moments
from fastaniso.statistics.catalogue import asked_for
from fastaniso.statistics.describe import describe
from fastaniso.statistics.host import InvalidRowsError


class Probe:
    """What ``fastaniso.probe`` returns: a context manager, or ``start()`` and ``stop()``; it can be used again."""

    def __init__(
        self,
        selection: Selection,
        *,
        gram: bool | str,
        metrics: Any,
        mask: str | None,
        channels: str | None,
        select: Callable[[Any], Any] | None,
        every: int,
        eager: bool | None,
        backend: str,
        invalid: str,
    ) -> None:
        """Use ``fastaniso.probe``, whose arguments these are."""
        if mask not in ("model", None):
            raise ValueError(f"mask: expected 'model' or None, got {mask!r}; masks of a batch go to probe.mask(keep)")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every: expected a positive int, got {every!r}")
        self._asked = asked_for(metrics, SCATTERS, who="a probe")
        self._options: dict[str, Any] = {
            "gram": scatters_for(self._asked, gram),
            "backend": backend,
            "invalid": invalid,
        }
        Accumulator(**self._options)  # that the options are right is told here, not in the first pass
        self._selection = selection
        self._channels = channels
        self._select = select
        self._every = every
        self._eager = eager
        # Walking through a large model takes milliseconds, and start() should not.
        self._modules = tuple(selection.root.outer.modules())
        places = [*selection.modules.values(), *(block for stack in selection.stacks for block in stack.blocks)]
        givers = {place.name: givers_of(selection.places, place) if mask else () for place in places}
        self._hooks = Hooks(selection, givers, self)
        self._gate: RemovableHandle | None = None
        self._end: RemovableHandle | None = None
        self._on = ExitStack()
        self._lock = Lock()
        self._calls = 0
        self._said: list[tuple[str | None, Given]] = []
        self.reset()

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the sites."""
        return self._selection.names

    @property
    def active(self) -> bool:
        """Whether it was started and not stopped."""
        return self._gate is not None

    def start(self) -> Self:
        """Hook the model, until ``stop``."""
        if self.active:
            raise RuntimeError("the probe is on already; call stop() first, or make another probe")
        root = self._selection.root.outer
        if self._every > 1 and root._compiled_call_impl is not None:
            raise ValueError(
                "every: hooks of a model that was compiled in place are compiled with it and cannot count its calls; "
                "compile it as torch.compile(model), or use `with probe:` in the steps to measure"
            )
        self._calls = 0
        self._gate = root.register_forward_pre_hook(self._begin_pass, with_kwargs=True)
        try:
            if self._every == 1:
                self._attach()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> Self:
        """Take every hook off; what was measured stays. Does nothing where there is none."""
        self._on.close()
        self._said.clear()
        self._gate = _removed(self._gate)
        self._end = _removed(self._end)
        return self

    def __enter__(self) -> Self:
        """``start``."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """``stop``, also after an exception."""
        self.stop()

    def mask(self, keep: Tensor, *, sites: str | None = None) -> None:
        """Count the positions where ``keep`` is True in the next pass, and forget it when the pass ends.

        Args:
            keep: Bool, the shape of a site's states without the last axis, ``(B, T)``; of maps with
                ``channels="first"`` that of the positions, ``(B, H, W)``.
            sites: A pattern of names of sites that it is for; by default all. The last that was said for a site holds.
        """
        if not isinstance(keep, Tensor) or keep.dtype != torch.bool:
            got = str(keep.dtype).removeprefix("torch.") if isinstance(keep, Tensor) else type(keep).__name__
            raise TypeError(f"keep: expected a bool tensor (True counts a position), got {got}; pass keep.bool()")
        if sites is not None and not any(matches(sites, name) for name in self.sites):
            raise ValueError(f"sites: no site is called {sites!r}; there are {', '.join(self.sites)}")
        self._said.append((sites, Given(keep, "probe.mask", "what probe.mask was given")))

    def reset(self) -> Self:
        """Forget what was measured; hooks stay where they are."""
        self._accumulators: dict[tuple[str, torch.device], Accumulator] = {}
        self._masked: dict[str, set[str]] = {}
        return self

    @property
    def states(self) -> dict[str, Moments | Gram]:
        """The states by site in the order of the flow, each on its device; of replicas, on that of the first."""
        states: dict[str, Moments | Gram] = {}
        for (site, _), accumulator in list(self._accumulators.items()):
            state = accumulator.state
            if site in states:
                device = states[site].counts.device
                state = states[site].merge(state.to(device))  # type: ignore[arg-type]  # of one kind
            states[site] = state
        return states

    def results(self, *, all_ranks: bool = False) -> ProbeResult:
        """Every statistic of every site so far; the one call that waits for the device.

        With ``all_ranks`` over all processes of ``torch.distributed``, each of which has to call it.
        """
        states, masked = self.states, {site: sorted(masks) for site, masks in self._masked.items()}
        if all_ranks:
            states, masked = gathered(states, masked)
        if not states:
            raise ValueError(
                "nothing measured yet: call the model while the probe is on (`with probe:`). A model that is compiled "
                "from outside does not see hooks: pass eager=True"
            )
        described = {site: self._describe(site, state) for site, state in states.items()}
        silent = tuple(site for site in self.sites if site not in states)
        return ProbeResult(described, {site: tuple(masked[site]) for site in described}, silent)

    def _describe(self, site: str, state: Moments | Gram) -> Description:
        try:
            return describe(state, invalid=self._options["invalid"], asked=self._asked)
        except InvalidRowsError as error:
            raise InvalidRowsError(f"site {site!r}: {error}") from None

    def receive(self, site: str, output: Any, given: Given | None) -> None:
        """Reduce what a hook handed on."""
        if not self.active:  # code that was compiled while hooks were on may call them for ever
            return
        hidden = hidden_state(output, self._channels, self._select)
        for pattern, said in self._said:
            given = said if pattern is None or matches(pattern, site) else given
        keep = None if given is None else given.fit(hidden)
        with self._lock:
            key = site, hidden.device
            if key not in self._accumulators:
                self._accumulators[key] = Accumulator(**self._options)
            self._accumulators[key].update(hidden, keep)
            self._masked.setdefault(site, set()).add("no mask" if given is None or keep is None else given.name)

    def refuse(self, site: str, error: Exception) -> Exception:
        """An error of a hook with the name of its site; the hooks are off before it is raised."""
        self.stop()
        kind = TypeError if isinstance(error, TypeError) else ValueError
        return kind(f"site {site!r}: {error}")

    def _begin_pass(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if recomputing():
            return
        self._end = _removed(self._end)  # a pass that was interrupted leaves it, and the hooks
        due, self._calls = self._calls % self._every == 0, self._calls + 1
        if self._every > 1:
            self._on.close()
            if due:
                self._attach()
                self._hooks.enter(module, args, kwargs)
        # Added now, to come after the hooks of the sites, of which the model itself may be one.
        self._end = module.register_forward_hook(self._end_pass, always_call=True)

    def _end_pass(self, *_: Any) -> None:
        self._end = _removed(self._end)
        self._said.clear()
        if self._every > 1:
            self._on.close()

    def _attach(self) -> None:
        self._on.callback(self._hooks.detach)
        if holds_compiled(self._modules) if self._eager is None else self._eager:
            self._on.enter_context(torch.compiler.set_stance("force_eager"))
        self._hooks.attach()


def holds_compiled(modules: Iterable[nn.Module]) -> bool:
    """Whether any module was compiled, by ``torch.compile`` or in place."""
    return any(module._compiled_call_impl is not None or "_orig_mod" in module._modules for module in modules)


def _removed(handle: RemovableHandle | None) -> RemovableHandle | None:
    """Take a hook off, if there is one: what is left of it, nothing."""
    if handle is not None:
        handle.remove()
    return None
