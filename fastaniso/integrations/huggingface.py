"""A callback for Hugging Face's Trainer."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from fastaniso.integrations.loggers import Logger
from fastaniso.integrations.watch import Watch
from fastaniso.probing import ProbeResult

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ModuleNotFoundError(
        "TrainerProbe needs the package transformers, which is not installed: pip install 'fastaniso[hf]'",
        name="transformers",
    ) from error


class TrainerProbe(TrainerCallback):
    """Watch the model of a ``Trainer``: ``Trainer(..., callbacks=[TrainerProbe(every=10, loggers=[...])])``.

    Optimizer steps count; all batches that gradient accumulation puts into a measured step are measured, and padding is
    left out by the batch's own ``attention_mask``. Compiled code runs uncompiled in measured steps. Hooks are on during
    measured steps alone; should training end by an exception in one, ``close()`` takes them off, as does the next
    ``train()``. Arguments are those of ``Watch``.
    """

    def __init__(
        self,
        sites: Any = None,
        *,
        every: int | Collection[int] = 10,
        loggers: Iterable[Logger] = (),
        **options: Any,
    ) -> None:
        """The Trainer hands over the model when training begins."""
        self._watch = Watch(None, sites, every=every, loggers=loggers, **options)

    @property
    def results(self) -> ProbeResult | None:
        """What was logged last."""
        return self._watch.results

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Nothing is on that another training left."""
        self._watch.stop()

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Hooks on, in a step to be measured."""
        # The Trainer compiles around the model that it hands over, which does not show it.
        compiled: dict[str, Any] = {"eager": True} if args.torch_compile else {}
        self._watch.begin(state.global_step, model, **compiled)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hooks off, numbers to the loggers."""
        self._watch.end(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hooks off, loggers closed."""
        self.close()

    def close(self) -> None:
        """Take the hooks off and close the loggers."""
        self._watch.close()
