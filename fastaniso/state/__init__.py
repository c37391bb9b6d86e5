"""The states that kernels make and statistics read: frozen, mergeable, on the device they were made on.

A state holds sums only, so ``merge`` is addition and the order of the parts does not matter (up to the
last bits of float64). Nothing here synchronises with a device: counts stay tensors until a statistic asks.
"""

from fastaniso.state.attention import Attention
from fastaniso.state.base import FORMAT_VERSION, NO_ROW, State
from fastaniso.state.coverage import Coverage, PairCoverage, Rectangle
from fastaniso.state.errors import CorruptStateError, StateMismatchError
from fastaniso.state.gram import Gram
from fastaniso.state.group_moments import GroupMoments
from fastaniso.state.head_moments import HeadMoments
from fastaniso.state.moments import Moments
from fastaniso.state.neighbors import Neighbors
from fastaniso.state.pairs import Pairs
from fastaniso.state.storage import bytes_to_state, load_state, save_state, state_to_bytes

__all__ = [
    "FORMAT_VERSION",
    "NO_ROW",
    "Attention",
    "CorruptStateError",
    "Coverage",
    "Gram",
    "GroupMoments",
    "HeadMoments",
    "Moments",
    "Neighbors",
    "PairCoverage",
    "Pairs",
    "Rectangle",
    "State",
    "StateMismatchError",
    "bytes_to_state",
    "load_state",
    "save_state",
    "state_to_bytes",
]
