"""What a command needs of the machine, checked before it begins."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

import typer


class DeviceMissingError(RuntimeError):
    """The device asked for is not here."""


def silence_transformers() -> None:
    """transformers and the hub show bars of their own while they load, and advice about what is installed."""
    # Where it is not installed, loading the model says so in better words.
    with suppress(ModuleNotFoundError):
        logging = import_module("transformers.utils.logging")
        logging.disable_progress_bar()
        logging.set_verbosity_error()


def check_device(device: str | None) -> None:
    """A word that names no device is wrong usage; a GPU that is not there is something missing."""
    if device is None:
        return
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise typer.BadParameter(f"{device!r} names no device", param_hint="--device") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceMissingError(f"device: {device!r} was asked for, and torch finds no GPU here")
