"""A probe in a training loop: every so many steps it is on, and its numbers go to loggers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as distributed
from torch import nn

from fastaniso.integrations.loggers import Logger
from fastaniso.probing import Probe, ProbeResult, probe


class Watch:
    """Measure one step of every ``every`` and log what was seen since the last log.

    ::

        watch = Watch(model, every=10, loggers=[JSONLLogger("run/geometry.jsonl")])
        for number, batch in enumerate(batches):
            with watch.step(number):
                train(model, batch)
        watch.close()

    Between measured steps the model has no hook. Under ``torch.distributed`` the states of all ranks are merged where
    they are logged, which every rank has to reach at the same steps, and rank 0 logs.

    Args:
        model: The module to watch, or None where ``begin`` is given it.
        sites: As for ``fastaniso.probe``.
        every: Steps from one that is measured to the next: those whose number it divides. Or the numbers themselves,
            such as ``[0, 1, 2, 4, 8]``.
        log_every: Steps from one log to the next, by default all that are measured: the only moments that wait for the
            device.
        loggers: Objects with ``log(scalars, step)`` and ``close()``.
        all_ranks: Merge over ranks; by default where there are several. False where ranks hold parts of one model.
        invalid: "omit" (rows that are zero or hold NaN or Inf are counted as ``rows_invalid``) or "raise".
        options: The other arguments of ``fastaniso.probe``, but ``every``.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        sites: Any = None,
        *,
        every: int | Collection[int] = 10,
        log_every: int | None = None,
        loggers: Iterable[Logger] = (),
        all_ranks: bool | None = None,
        invalid: str = "omit",
        **options: Any,
    ) -> None:
        """Sites are looked up at once where a model is given, else at the first measured step."""
        self._steps = None if isinstance(every, int) else _step_numbers(every)
        self._every = _positive("every", every) if isinstance(every, int) else 1
        self._log_every = self._every if log_every is None else _positive("log_every", log_every)
        self.results: ProbeResult | None = None
        self._sites = sites
        self._loggers = tuple(loggers)
        self._all_ranks = all_ranks
        self._options = {"invalid": invalid, **options}
        self._probe: Probe | None = None if model is None else probe(model, sites, **self._options)
        self._seen = False
        self._next_log = 0

    @property
    def probe(self) -> Probe | None:
        """The probe, where there is one yet."""
        return self._probe

    @contextmanager
    def step(self, number: int, model: nn.Module | None = None) -> Iterator[Probe | None]:
        """One training step; yields the probe where it is measured, for ``probe.mask``, and None where it is not."""
        yielded = self.begin(number, model)
        try:
            yield yielded
        except BaseException:
            self.stop()
            raise
        self.end(number)

    def begin(self, number: int, model: nn.Module | None = None, **options: Any) -> Probe | None:
        """Put the hooks on, if step ``number`` is to be measured; ``options`` are further ones of the probe."""
        if number % self._every if self._steps is None else number not in self._steps:
            return None
        if self._probe is None:
            if model is None:
                raise ValueError("model: give the module to watch to Watch(model) or to the first step")
            self._probe = probe(model, self._sites, **{**options, **self._options})
        if not self._probe.active:
            self._probe.start()
        self._seen = True
        return self._probe

    def end(self, number: int) -> ProbeResult | None:
        """Take the hooks off, and log if it is time: what was logged, else None."""
        self.stop()
        if not self._seen or number < self._next_log:
            return None
        assert self._probe is not None  # a step has begun
        self._next_log = number + self._log_every
        self._seen = False
        self.results = self._probe.results(all_ranks=_several_ranks() if self._all_ranks is None else self._all_ranks)
        self._probe.reset()
        if _rank() == 0:
            scalars = self.results.scalars()
            for logger in self._loggers:
                logger.log(scalars, number)
        return self.results

    def stop(self) -> None:
        """Take the hooks off, as after an exception; does nothing where there are none."""
        if self._probe is not None:
            self._probe.stop()

    def close(self) -> None:
        """Take the hooks off and close the loggers."""
        self.stop()
        for logger in self._loggers:
            logger.close()


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected a positive int, got {value!r}")
    return value


def _step_numbers(every: Collection[int]) -> frozenset[int]:
    is_collection = isinstance(every, Collection) and not isinstance(every, str | bytes)
    if not is_collection or not every or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in every):
        raise ValueError(f"every: expected a positive int, or the numbers of the steps to measure, got {every!r}")
    return frozenset(every)


def _several_ranks() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _rank() -> int:
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
