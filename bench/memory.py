"""Peak memory of a call beside its input: `python -m bench.memory OP N D DTYPE THREADS CONTENDER...`.

Run by ``peaks`` in a process of its own, so that nothing that was freed before is used again unseen.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from bench import inputs
from bench.baselines import BASELINES
from bench.machine import use_threads

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEASURABLE = _CLEAR.exists()
"""Whether the system tells (Linux)."""


def peaks(op: str, names: Iterable[str], n: int, d: int, dtype: str, threads: int) -> dict[str, float]:
    """MiB that each contender takes beside its resident input; empty where the system does not tell."""
    names = list(names)
    if not MEASURABLE or not names:
        return {}
    command = [sys.executable, "-m", "bench.memory", op, str(n), str(d), dtype, str(threads), *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_of(call: Callable[[], object], *, warm: Callable[[], object] | None = None) -> float:
    """MiB by which the process grows during a call after ``warm``, or another call, which loads what it needs."""
    (warm or call)()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # what the first call freed must not serve the second
    _CLEAR.write_text("5")  # the peak starts again at what is resident now
    before = _kib("VmRSS")
    call()
    return (_kib("VmHWM") - before) / 1024


def _kib(name: str) -> int:
    return next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith(name))


def main() -> None:
    op, n, d, dtype, threads, *names = sys.argv[1:]
    use_threads(int(threads))
    rows = inputs.make(int(n), int(d), dtype)
    contenders = {c.name: c for c in BASELINES[op]}
    # The call's result is dropped inside, as the caller's of one number would be.
    found = {name: peak_of(lambda call=contenders[name].call: call(rows)) for name in names}  # type: ignore[misc]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
