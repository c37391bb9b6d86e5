"""A callback for Lightning's Trainer, of the package lightning or pytorch_lightning."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from fastaniso.integrations.loggers import Logger
from fastaniso.integrations.watch import Watch
from fastaniso.probing import ProbeResult

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError as error:
        raise ModuleNotFoundError(
            "LightningProbe needs the package lightning or pytorch_lightning, and neither is installed: "
            "pip install 'fastaniso[train]'",
            name="lightning",
        ) from error


class LightningProbe(Callback):  # type: ignore[misc]  # its types depend on what is installed
    """Watch a ``LightningModule``: ``Trainer(callbacks=[LightningProbe(every=10)])``.

    Numbers go to the Trainer's own loggers as ``fastaniso/metric/site``, and to ``loggers``. Optimizer steps count, all
    batches of an accumulated step are measured, and hooks are gone after every step, also one that raises. Arguments
    are those of ``Watch``.
    """

    def __init__(
        self,
        sites: Any = None,
        *,
        every: int | Collection[int] = 10,
        loggers: Iterable[Logger] = (),
        **options: Any,
    ) -> None:
        """The Trainer hands over the module when training begins."""
        self._watch = Watch(None, sites, every=every, loggers=loggers, **options)

    @property
    def results(self) -> ProbeResult | None:
        """What was logged last."""
        return self._watch.results

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Hooks on, in a step to be measured."""
        self._watch.begin(trainer.global_step, pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Hooks off, numbers to the loggers."""
        results = self._watch.end(trainer.global_step)
        if results is not None and trainer.is_global_zero:
            scalars = {f"fastaniso/{name}": value for name, value in results.scalars().items()}
            for logger in trainer.loggers:
                logger.log_metrics(scalars, step=trainer.global_step)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Hooks off."""
        self._watch.stop()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Hooks off, loggers closed."""
        self._watch.close()
