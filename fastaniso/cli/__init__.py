"""The command line."""

from fastaniso.cli.commands import app, main

__all__ = ["app", "main"]
