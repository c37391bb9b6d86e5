"""Models: loading them, finding their blocks by structure, reading the hidden states as they pass, and their masks."""

from fastaniso.models.inputs import forward_arguments
from fastaniso.models.loading import ModelNotFoundError, load_model
from fastaniso.models.stacks import Anatomy, Stack, find_stacks
from fastaniso.models.taps import tapped

__all__ = ["Anatomy", "ModelNotFoundError", "Stack", "find_stacks", "forward_arguments", "load_model", "tapped"]
