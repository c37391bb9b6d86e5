"""States and shards sent between ranks: JSON and tensors, never pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fastaniso.state import State, StateMismatchError

S = TypeVar("S", bound=State)
T = TypeVar("T")
_DTYPES = {str(dtype): dtype for dtype in (torch.int64, torch.float64, torch.float32, torch.uint8, torch.bool)}


class RankError(RuntimeError):
    """Something went wrong on a rank; raised on all of them, with the first rank's message."""


def agreed(call: Callable[[], T], group: dist.ProcessGroup | None) -> T:
    """``call()`` on every rank; an exception on any of them raises on all, so that nobody waits for who has left."""
    found: list[T] = []
    failure: Exception | None = None
    try:
        found.append(call())
    except Exception as error:
        failure = error
    told = gather_json(None if failure is None else f"{type(failure).__name__}: {failure}", group)
    if failure is not None:
        raise failure
    for rank, message in enumerate(told):
        if message is not None:
            raise RankError(f"rank {rank}: {message}")
    return found[0]


def merge(state: S, group: dist.ProcessGroup | None = None) -> S:
    """The states of all ranks merged, on every rank; collective.

    By a binary tree in the order of the ranks: the same bits on every rank and in every run of so many ranks. Memory is
    that of three states. States must be of one kind and form, and of disjoint rows, as ``State.merge`` requires;
    otherwise all ranks raise.
    """
    kinds = gather_json(state.kind, group)
    if len(set(kinds)) > 1:
        raise StateMismatchError(f"state: expected one kind on all ranks, got {', '.join(kinds)}")

    def whole() -> S:
        return _gathered(state, group)

    return _broadcast(agreed(whole, group), group)


def _gathered(state: S, group: dist.ProcessGroup | None) -> S:
    """On the first rank all states merged, on others those of their branch of the tree."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    failure: Exception | None = None
    step = 1
    while step < size:
        if rank % (2 * step):
            send_state(state, rank - step, group)
            break
        if rank + step < size:
            received = receive_state(state, rank + step, group)
            try:
                state = state.merge(received)  # type: ignore[attr-defined]  # every kind has it
            except Exception as error:
                # The rank below still waits for a state.
                failure = error
        step *= 2
    if failure is not None:
        raise failure
    return state


def send_state(state: State, to: int, group: dist.ProcessGroup | None) -> None:
    """Send to a rank of the group that calls ``receive_state``."""
    content = state.to_dict()
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    header = {name: value for name, value in content.items() if name not in tensors}
    form = {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()}
    device = next(iter(tensors.values())).device
    _send_json([header, form], to, device, group)
    for tensor in tensors.values():
        if tensor.numel():
            dist.send(tensor.contiguous(), group=group, group_dst=to)


def receive_state(like: S, source: int, group: dist.ProcessGroup | None) -> S:
    """What a rank sent, a state of the kind of ``like`` on its device."""
    device = next(value.device for value in like.to_dict().values() if isinstance(value, Tensor))
    header, form = _receive_json(source, device, group)
    tensors = {}
    for name, (dtype, shape) in form.items():
        tensors[name] = torch.empty(shape, dtype=_DTYPES[dtype], device=device)
        if tensors[name].numel():
            dist.recv(tensors[name], group=group, group_src=source)
    return type(like).from_dict({**header, **tensors})


def gather_json(content: Any, group: dist.ProcessGroup | None, device: torch.device | str = "cpu") -> list[Any]:
    """What every rank gave, in order."""
    own = _encoded(content, device)
    size = dist.get_world_size(group)
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(size)]
    dist.all_gather(lengths, torch.tensor([len(own)], device=device), group=group)
    longest = max(int(length) for length in lengths)
    padded = torch.zeros(longest, dtype=torch.uint8, device=device)
    padded[: len(own)] = own
    given = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(given, padded, group=group)
    return [_decoded(text[: int(length)]) for text, length in zip(given, lengths, strict=True)]


def _broadcast(state: S, group: dist.ProcessGroup | None) -> S:
    """The first rank's state on every rank, down the same tree."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    top = 1
    while top < size:
        top *= 2
    step = top
    while step > 1:
        step //= 2
        if rank % (2 * step) == 0 and rank + step < size:
            send_state(state, rank + step, group)
        elif rank % (2 * step) == step:
            state = receive_state(state, rank - step, group)
    return state


def _send_json(content: Any, to: int, device: torch.device, group: dist.ProcessGroup | None) -> None:
    text = _encoded(content, device)
    dist.send(torch.tensor([len(text)], device=device), group=group, group_dst=to)
    dist.send(text, group=group, group_dst=to)


def _receive_json(source: int, device: torch.device, group: dist.ProcessGroup | None) -> Any:
    length = torch.zeros(1, dtype=torch.int64, device=device)
    dist.recv(length, group=group, group_src=source)
    text = torch.empty(int(length), dtype=torch.uint8, device=device)
    dist.recv(text, group=group, group_src=source)
    return _decoded(text)


def _encoded(content: Any, device: torch.device | str) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8).to(device)


def _decoded(text: Tensor) -> Any:
    return json.loads(bytes(text.cpu().tolist()))


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
