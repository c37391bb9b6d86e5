"""What surrounds the kernels: choosing an instruction set, interruption, other Python threads, forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

import fastaniso
from fastaniso.heads import as_heads
from fastaniso.ops import cpu, dispatch
from fastaniso.rows import as_rows


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )


CALL = (
    "import torch, fastaniso; from fastaniso.ops import cpu; fastaniso.mean_cosine(torch.randn(9, 4)); print(cpu.isa())"
)


@pytest.mark.parametrize("name", cpu.available_isas())
def test_the_environment_chooses_the_instruction_set(name: str) -> None:
    assert run(CALL, FASTANISO_ISA=name).stdout.strip() == name


def test_without_a_choice_the_best_is_used() -> None:
    assert run(CALL, FASTANISO_ISA="").stdout.strip() == cpu.available_isas()[0]


def test_an_unknown_instruction_set_is_refused() -> None:
    done = run(CALL, FASTANISO_ISA="avx1024")
    assert done.returncode != 0
    assert "FASTANISO_ISA: no instruction set 'avx1024'; this CPU can run" in done.stderr
    with pytest.raises(ValueError, match="no instruction set 'mmx'"), cpu.using_isa("mmx"):
        pass


def test_a_known_instruction_set_is_checked_against_the_cpu() -> None:
    known = {"avx512", "avx2", "scalar"}
    missing = known - set(cpu.available_isas())
    if not missing:
        pytest.skip("this CPU can run every instruction set that is built in")
    done = run(CALL, FASTANISO_ISA=missing.pop())
    assert done.returncode != 0
    assert "this CPU cannot run" in done.stderr


LONG = {
    # One row repeated: half a minute of work that takes no memory.
    "gram": lambda: dispatch.gram(as_rows(torch.randn(1, 256).expand(50_000_000, 256))),
    "pairs": lambda: dispatch.pairs(as_rows(torch.randn(1, 256).expand(500_000, 256)), bins=256),
    "neighbors": lambda: dispatch.neighbors(as_rows(torch.randn(500_000, 16)), k=2),
    "attention": lambda: dispatch.attention(as_heads(*[torch.randn(1, 1, 1, 64).expand(1, 8, 60_000, 64)] * 2)),
}


@pytest.mark.alone
@pytest.mark.parametrize("op", LONG)
@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c_ends_a_long_kernel_within_a_second(count: int, op: str) -> None:
    before = torch.get_num_threads()
    # A process started in the background of a shell ignores the signal.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(count)
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.5, interrupt)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            LONG[op]()
    finally:
        timer.join()
        signal.signal(signal.SIGINT, handler)
        torch.set_num_threads(before)
    assert time.monotonic() - sent[0] < 1


def test_other_python_threads_run_meanwhile() -> None:
    ticks = 0
    done = threading.Event()

    def count() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    before = ticks
    fastaniso.mean_cosine(torch.randn(1, 64).expand(20_000_000, 64))
    during = ticks - before
    done.set()
    thread.join()
    assert during > 10


def test_a_forked_child_can_measure() -> None:
    code = """
import os, torch, fastaniso
hidden = torch.randn(20000, 128)
expected = fastaniso.mean_cosine(hidden)
child = os.fork()
if child == 0:
    os._exit(0 if fastaniso.mean_cosine(hidden) == expected else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
