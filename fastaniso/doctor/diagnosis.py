"""What this machine can use, and a proof: each backend on a small case against float64."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fastaniso.doctor.case import Case
from fastaniso.doctor.machine import describe_machine, is_installed
from fastaniso.doctor.pairs import prove_neighbors, prove_pairs
from fastaniso.doctor.sums import prove_reference_sums, prove_sums
from fastaniso.rows import DTYPES

Proof = Callable[[Case, str], tuple[float, bool]]

_PROOFS: tuple[Proof, ...] = (prove_sums, prove_pairs, prove_neighbors)


@dataclass(frozen=True)
class Check:
    """One backend on one device: ok, failed or unavailable; ``error`` is the largest, of a cosine or of a sum.

    Those of sums are relative to the largest of their kind.
    """

    backend: str
    device: str
    status: str
    error: float | None
    detail: str


@dataclass(frozen=True)
class Diagnosis:
    """The machine and what was proven on it."""

    machine: dict[str, Any]
    checks: tuple[Check, ...]

    @property
    def failed(self) -> bool:
        """Whether a backend that should work gives wrong sums or an error."""
        return any(check.status == "failed" for check in self.checks)

    @property
    def usable(self) -> bool:
        """Whether there is a kernel besides the slow reference."""
        return any(check.status == "ok" and check.backend != "reference" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict."""
        return {"kind": "doctor", "machine": self.machine, "checks": [asdict(check) for check in self.checks]}

    def to_json(self, *, indent: int | None = None) -> str:
        """JSON of ``to_dict``."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        facts = [(name, _words(value)) for name, value in self.machine.items()]
        width = max(len(name) for name, _ in facts)
        lines = [f"{name:<{width}}  {value}" for name, value in facts]
        lines.append("")
        for check in self.checks:
            error = "" if check.error is None else f"largest error {check.error:.1e}; "
            lines.append(f"{check.backend:<9}  {check.device:<6}  {check.status:<11}  {error}{check.detail}")
        return "\n".join(lines)


def diagnose() -> Diagnosis:
    """Look at the machine and prove every backend that can run on it."""
    machine = describe_machine()
    with _one_thread():
        return Diagnosis(machine, (*_prove_cpu(), *_prove_triton(), _prove_reference()))


@contextmanager
def _one_thread() -> Iterator[None]:
    """So small a case is one thread's work to the kernels anyway; more would wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _prove_cpu() -> Iterable[Check]:
    try:
        from fastaniso.ops import cpu
    except ImportError as error:
        return [Check("cpu", "cpu", "unavailable", None, f"the compiled kernels cannot be imported: {error}")]
    checks = []
    for isa in cpu.available_isas():
        with cpu.using_isa(isa):
            checks.append(_prove("cpu", torch.device("cpu"), f"{isa} kernels"))
    return checks


def _prove_triton() -> Iterable[Check]:
    if not torch.cuda.is_available():
        return [Check("triton", "cuda", "unavailable", None, "torch finds no GPU")]
    if not is_installed("triton"):
        return [Check("triton", "cuda", "unavailable", None, "the package triton is not installed")]
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [_prove("triton", device, torch.cuda.get_device_name(device)) for device in devices]


def _prove_reference() -> Check:
    cpu = torch.device("cpu")
    proofs: list[Proof] = [prove_reference_sums, prove_pairs, prove_neighbors]
    return _judge("reference", cpu, "against the full matrix of cosines, float64", proofs, (torch.float64,))


def _prove(backend: str, device: torch.device, detail: str) -> Check:
    dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
    return _judge(backend, device, f"{detail}; every op in {dtypes}", _PROOFS, DTYPES)


def _judge(
    backend: str, device: torch.device, detail: str, proofs: Iterable[Proof], dtypes: Iterable[torch.dtype]
) -> Check:
    worst, right = 0.0, True
    try:
        for dtype in dtypes:
            case = Case(dtype, device)
            for proof in proofs:
                error, is_right = proof(case, backend)
                worst, right = max(worst, error), right and is_right
    except Exception as error:
        return Check(backend, str(device), "failed", None, f"{detail}: {type(error).__name__}: {error}")
    return Check(backend, str(device), "ok" if right else "failed", worst, detail)


def _words(value: Any) -> str:
    return "; ".join(value) if isinstance(value, list) else str(value)
