"""States and shards sent between ranks: JSON and tensors, never pickle, in as few messages as can be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fastaniso.state import State, StateMismatchError

S = TypeVar("S", bound=State)
T = TypeVar("T")
_DTYPES = {str(dtype): dtype for dtype in (torch.int64, torch.float64, torch.float32, torch.uint8, torch.bool)}
_HEAD = 1 << 16
"""Bytes of the message that a state begins with: most states are no longer, and arrive whole in one."""
_TOLD = 1 << 12
"""The same of what all ranks tell all."""
_ALIGNED = 16


class RankError(RuntimeError):
    """Something went wrong on a rank; raised on all of them, with the first rank's message."""


def shared(call: Callable[[], tuple[T, Any]], group: dist.ProcessGroup | None) -> tuple[T, list[Any]]:
    """``call()`` gives a rank's own and what it tells (as JSON): its own, and what all ranks tell, in one round.

    An exception on any of them raises on all, so that nobody waits for who has left.
    """
    found: list[T] = []
    failure: Exception | None = None
    content: Any = None
    try:
        own, content = call()
        found.append(own)
    except Exception as error:
        failure = error
    told = gather_json([None if failure is None else _named(failure), content], group)
    if failure is not None:
        raise failure
    for rank, (message, _) in enumerate(told):
        if message is not None:
            raise RankError(f"rank {rank}: {message}")
    return found[0], [content for _, content in told]


def agreed(call: Callable[[], T], group: dist.ProcessGroup | None) -> T:
    """``call()`` on every rank; an exception on any of them raises on all."""
    return shared(lambda: (call(), None), group)[0]


def gather_json(content: Any, group: dist.ProcessGroup | None) -> list[Any]:
    """What every rank gave, in order; over NCCL where the group has nothing else."""
    alone = dist.get_backend(group) == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if alone else torch.device("cpu")
    own = _framed(content, {}, _TOLD, device)
    told = _all_gathered(own[:_TOLD], group)
    longest = max(_length(frame) for frame in told)
    if longest > _TOLD:
        rest = torch.zeros(longest - _TOLD, dtype=torch.uint8, device=device)
        rest[: len(own) - _TOLD] = own[_TOLD:]
        told = [torch.cat(parts) for parts in zip(told, _all_gathered(rest, group), strict=True)]
    return [_unframed(frame)[0] for frame in told]


def merge(state: S, group: dist.ProcessGroup | None = None) -> S:
    """The states of all ranks merged, on every rank; collective.

    By a binary tree in the order of the ranks: the same bits on every rank and in every run of so many ranks. Memory is
    that of three states. States must be of one kind and form, and of disjoint rows, as ``State.merge`` requires;
    otherwise all ranks raise.
    """
    device = next(value.device for value in state.to_dict().values() if isinstance(value, Tensor))
    return merged(lambda: state, device, group)


def merged(call: Callable[[], S], device: torch.device, group: dist.ProcessGroup | None) -> S:
    """``merge`` of what ``call()`` gives, whose tensors are on ``device``; its exception raises on all ranks, too.

    Failures go the way of the states, up the tree and down again, so that no round is spent on asking for them.
    """
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    try:
        found: _Found[S] = _Found(call())
    except Exception as error:
        found = _Found(failure=[rank, _named(error)], error=error)
    step = 1
    while step < size:
        if rank % (2 * step):
            _send(found, rank - step, device, group)
            break
        if rank + step < size:
            found = _joined(found, *_receive(rank + step, device, group), rank)
        step *= 2
    own_error = found.error
    found = _broadcast(found, device, group)
    if found.failure is not None:
        if own_error is not None:
            raise own_error
        raise RankError("rank {}: {}".format(*found.failure))
    assert found.state is not None
    return found.state


@dataclass(frozen=True)
class _Found(Generic[S]):
    """The states merged so far, or what went wrong: the rank and a message, and there the exception itself."""

    state: S | None = None
    failure: list[Any] | None = None
    error: Exception | None = None


def _joined(ours: _Found[S], header: Any, tensors: Mapping[str, Tensor], rank: int) -> _Found[S]:
    """With what came from a rank further up the tree."""
    if ours.state is None:
        return ours
    if "failure" in header:
        return _Found(failure=header["failure"])
    try:
        if header["kind"] != ours.state.kind:
            kinds = f"{ours.state.kind}, {header['kind']}"
            raise StateMismatchError(f"state: expected one kind on all ranks, got {kinds}")
        theirs = type(ours.state).from_dict({**header, **tensors})
        return _Found(ours.state.merge(theirs))  # type: ignore[attr-defined]  # every kind has it
    except Exception as error:
        return _Found(failure=[rank, _named(error)], error=error)


def _broadcast(found: _Found[S], device: torch.device, group: dist.ProcessGroup | None) -> _Found[S]:
    """What the first rank has, on every rank, down the same tree."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    step = 1
    while step < size:
        step *= 2
    while step > 1:
        step //= 2
        if rank % (2 * step) == 0 and rank + step < size:
            _send(found, rank + step, device, group)
        elif rank % (2 * step) == step:
            header, tensors = _receive(rank - step, device, group)
            if "failure" in header:
                found = _Found(failure=header["failure"])
            else:
                # Nothing has failed on any rank, so that this one has a state of the kind.
                assert found.state is not None
                found = _Found(type(found.state).from_dict({**header, **tensors}))
    return found


def _send(found: _Found[S], to: int, device: torch.device, group: dist.ProcessGroup | None) -> None:
    content = {"failure": found.failure} if found.state is None else found.state.to_dict()
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    header = {name: value for name, value in content.items() if name not in tensors}
    frame = _framed(header, tensors, _HEAD, device)
    for part in frame[:_HEAD], frame[_HEAD:]:
        if len(part):
            dist.send(part, group=group, group_dst=to)


def _receive(source: int, device: torch.device, group: dist.ProcessGroup | None) -> tuple[Any, dict[str, Tensor]]:
    head = torch.empty(_HEAD, dtype=torch.uint8, device=device)
    dist.recv(head, group=group, group_src=source)
    length = _length(head)
    if length <= _HEAD:
        return _unframed(head)
    frame = torch.empty(length, dtype=torch.uint8, device=device)
    frame[:_HEAD] = head
    dist.recv(frame[_HEAD:], group=group, group_src=source)
    return _unframed(frame)


def _framed(header: Any, tensors: Mapping[str, Tensor], at_least: int, device: torch.device) -> Tensor:
    """As bytes: how many they are, how long the JSON is, the JSON, and the tensors."""
    places: dict[str, tuple[str, list[int], int]] = {}
    end = 0
    for name, tensor in tensors.items():
        places[name] = (str(tensor.dtype), list(tensor.shape), end)
        end += _aligned(tensor.nbytes)
    text = json.dumps([header, places]).encode()
    begin = _aligned(_ALIGNED + len(text))
    frame = torch.zeros(max(begin + end, at_least), dtype=torch.uint8, device=device)
    sizes = torch.tensor([begin + end, len(text)]).view(torch.uint8)
    frame[: _ALIGNED + len(text)] = torch.cat((sizes, torch.frombuffer(bytearray(text), dtype=torch.uint8))).to(device)
    for name, tensor in tensors.items():
        at = begin + places[name][2]
        frame[at : at + tensor.nbytes] = tensor.contiguous().view(-1).view(torch.uint8)
    return frame


def _unframed(frame: Tensor) -> tuple[Any, dict[str, Tensor]]:
    """The header, and the tensors as views of the frame."""
    _, length = frame[:_ALIGNED].view(torch.int64).tolist()
    header, places = json.loads(bytes(frame[_ALIGNED : _ALIGNED + length].cpu().numpy()))
    begin, tensors = _aligned(_ALIGNED + length), {}
    for name, (dtype, shape, at) in places.items():
        empty = torch.empty(shape, dtype=_DTYPES[dtype], device="meta")
        content = frame[begin + at : begin + at + empty.nbytes]
        tensors[name] = content.view(empty.dtype).view(shape)
    return header, tensors


def _length(frame: Tensor) -> int:
    return int(frame[:8].view(torch.int64))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _all_gathered(own: Tensor, group: dist.ProcessGroup | None) -> list[Tensor]:
    given = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(given, own, group=group)
    return given


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def exchange(
    sent: Sequence[Tensor], to: int, received: Sequence[Tensor], source: int, group: dist.ProcessGroup | None
) -> Callable[[], None]:
    """Begin to send tensors to one rank and to receive others from another; what is returned waits for both.

    Empty tensors stay at home. The tensors must be left alone until then.
    """
    operations = [dist.P2POp(dist.isend, tensor, group=group, group_peer=to) for tensor in sent if tensor.numel()] + [
        dist.P2POp(dist.irecv, tensor, group=group, group_peer=source) for tensor in received if tensor.numel()
    ]
    work = dist.batch_isend_irecv(operations) if operations else []

    def wait() -> None:
        for each in work:
            each.wait()

    return wait
