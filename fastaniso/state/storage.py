"""States on disk and on their way between processes: safetensors with a checksum, never pickle."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fastaniso.state.attention import Attention
from fastaniso.state.base import State
from fastaniso.state.errors import CorruptStateError
from fastaniso.state.gram import Gram
from fastaniso.state.group_moments import GroupMoments
from fastaniso.state.head_moments import HeadMoments
from fastaniso.state.moments import Moments
from fastaniso.state.neighbors import Neighbors
from fastaniso.state.pairs import Pairs

_KINDS: dict[str, type[State]] = {
    kind.__name__: kind for kind in (Moments, Gram, GroupMoments, HeadMoments, Pairs, Neighbors, Attention)
}


def state_to_bytes(state: State) -> bytes:
    """A state as the bytes of a safetensors file with a checksum: what ``save_state`` writes."""
    from safetensors.torch import save

    content = state.to_dict()
    tensors = {n: t.detach().cpu().contiguous() for n, t in content.items() if isinstance(t, Tensor)}
    header = {n: v for n, v in content.items() if not isinstance(v, Tensor)}
    metadata = {"fastaniso": json.dumps(header, sort_keys=True)}
    metadata["sha256"] = _checksum(metadata["fastaniso"], tensors)
    written: bytes = save(tensors, metadata)
    return written


def bytes_to_state(content: bytes) -> State:
    """The state that ``state_to_bytes`` gave; raises ``CorruptStateError`` if it is damaged or something else."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
    except SafetensorError as error:
        raise CorruptStateError(f"content: not readable as safetensors ({error})") from error
    # The length of the header stands before it, in eight bytes; that it is whole has just been checked.
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return _checked("content", metadata, tensors)


def save_state(state: State, path: str | os.PathLike[str]) -> None:
    """Write a state as safetensors with a checksum, by atomic rename: a reader sees all of it or nothing."""
    content = state_to_bytes(state)
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_state(path: str | os.PathLike[str]) -> State:
    """Read a state that ``save_state`` wrote; raises ``CorruptStateError`` if it is damaged or something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise CorruptStateError(f"{path}: not a readable safetensors file ({error})") from error
    return _checked(path, metadata, tensors)


def _checked(place: str | os.PathLike[str], metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> State:
    """The state that was read from ``place``, if it is one and whole."""
    if "fastaniso" not in metadata:
        raise CorruptStateError(f"{place}: safetensors, but not a fastaniso state")
    if metadata.get("sha256") != _checksum(metadata["fastaniso"], tensors):
        raise CorruptStateError(f"{place}: checksum does not match its contents: it is damaged")
    header = json.loads(metadata["fastaniso"])
    kind = _KINDS.get(header.get("kind"))
    if kind is None:
        raise CorruptStateError(f"{place}: unknown kind of state {header.get('kind')!r}")
    return kind.from_dict({**header, **tensors})


def _checksum(header: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
