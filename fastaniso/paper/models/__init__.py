"""The models of the paper's third section, or those of a list file: each scanned once, for all that is told of it."""

from fastaniso.paper.models.list_file import Entry, default_list, read_list
from fastaniso.paper.models.scans import measure

__all__ = ["Entry", "default_list", "measure", "read_list"]
