"""What every benchmark is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from rich.console import Console

from bench.baselines import Contender
from bench.harness import Row, Timing
from bench.memory import peaks
from fastaniso.ops import cpu


@dataclass(frozen=True)
class Options:
    """``threads`` ascending: all of them for what scales, the last for what is compared.

    ``only_ours`` leaves the baselines out, but for the limits.
    """

    threads: tuple[int, ...]
    quick: bool = False
    only_ours: bool = False

    @property
    def most_threads(self) -> int:
        return self.threads[-1]

    def say(self, text: str) -> None:
        Console(stderr=True, soft_wrap=True).print(f"[dim]{cpu.isa()}[/dim] {text}", highlight=False)

    def peaks(self, op: str, names: Iterable[str], n: int, d: int, dtype: str) -> dict[str, float]:
        """``memory.peaks``, where it is worth a process of its own."""
        if self.only_ours or (self.quick and dtype != "float32"):
            return {}
        return peaks(op, names, n, d, dtype, self.most_threads)

    def rounds(self, fewest: int = 5, most: int = 40) -> tuple[int, int]:
        """Fewest and most rounds of ``harness.interleave``."""
        return (2, 2) if self.quick else (fewest, most)


def row(
    op: str,
    contender: str,
    backend: str,
    size: tuple[int, int, str],
    threads: int | None,
    timing: Timing | None,
    *,
    operations: float | None = None,
    limit: float | None = None,
    ours: float | None = None,
    kind: str = "drifted",
    peak_mib: float | None = None,
    error: float | None = None,
) -> Row:
    """A row of the CPU: ``operations`` of the op, ``limit`` and ``ours`` in seconds, measured in the same rounds."""
    n, d, dtype = size
    seconds = timing.p50 if timing else None
    return Row(
        op,
        contender,
        backend,
        cpu.isa(),
        n,
        d,
        dtype,
        threads,
        kind,
        **(timing.columns() if timing else {}),
        gb_per_s=n * d * getattr(torch, dtype).itemsize / seconds / 1e9 if seconds else None,
        tflop_per_s=operations / seconds / 1e12 if operations and seconds else None,
        share_of_limit=limit / seconds if limit and seconds else None,
        ratio_to_ours=seconds / ours if ours and seconds else None,
        peak_mib=peak_mib,
        error=error,
    )


def skip_missing(contenders: Iterable[Contender], options: Options) -> list[Contender]:
    """The contenders that can run here; says why the others cannot."""
    kept = []
    for contender in contenders:
        reason = contender.missing()
        if reason is None:
            kept.append(contender)
        else:
            options.say(f"left out: {reason}")
    return kept
