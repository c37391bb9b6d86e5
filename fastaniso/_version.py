"""The version, as a constant: importlib.metadata takes longer than the rest of the import."""

__version__ = "0.1.0"
