from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastaniso.ops import cpu


def cpu_backends() -> list[str]:
    """Every instruction set that this machine can run, best first."""
    return cpu.available_isas()


@pytest.fixture(params=cpu_backends())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set in turn, in use while the test runs."""
    with cpu.using_isa(request.param):
        yield request.param


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest first, so that two processes end together; ``slow`` tests where ``-m`` asks for them."""
    items.sort(key=lambda item: item.path.parent.name != "triton")
    if "slow" not in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: runs with -m slow"))
