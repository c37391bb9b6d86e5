"""Who may import whom: data flows hidden → rows → ops → state → statistics → result, and nothing flows back."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fastaniso

ROOT = Path(fastaniso.__file__).parent

# Each room and the rooms it may import from; a room is a module or a folder of fastaniso/.
MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "_public": {"accumulator", "functional", "planning", "result", "state", "statistics"},
    "rows": set(),
    "heads": {"rows"},
    "state": set(),
    "result": {"report"},  # only to draw itself, when asked to
    "ops": {"rows", "heads", "state", "_cpu"},
    "statistics": {"state", "result", "_version"},
    "progress": set(),
    "pairing": {"rows", "state", "ops", "statistics", "result", "progress"},
    "sampling": {"_version", "rows", "state", "ops", "statistics", "result", "pairing", "progress"},
    "planning": {"rows", "heads", "ops", "pairing", "sampling"},
    "accumulator": {"rows", "state", "ops", "statistics", "result", "planning"},
    "functional": {
        *{"_version", "rows", "heads", "state", "ops", "statistics", "result", "accumulator", "planning", "pairing"},
        *{"sampling", "progress"},
    },
    "transforms": {"rows", "state", "ops", "statistics", "result", "accumulator"},
    "models": set(),
    "sources": {"rows", "models"},  # models: the codes that say why a token is not measured
    "report": {"result"},
    "scanning": {
        *{"_version", "rows", "heads", "state", "ops", "statistics", "result", "planning", "accumulator"},
        *{"models", "sources", "report", "pairing", "progress", "functional", "distributed"},
    },
    "runs": {"state", "statistics", "result", "scanning", "report"},
    "probing": {"state", "statistics", "result", "accumulator"},
    "integrations": {"probing", "rows", "ops", "state", "statistics", "result"},
    "distributed": {"rows", "state", "ops", "pairing", "statistics", "result", "accumulator", "functional"},
    # A room in that folder, which nothing imports.
    "distributed/ray": {"accumulator", "progress", "result", "sources", "state", "statistics", "tasks"},
    "tasks": {
        *{"_version", "rows", "ops", "state", "sources", "pairing", "functional", "scanning", "progress"},
        "distributed",
    },
    "paper": {"report", "integrations"},  # else only the names of fastaniso itself: see below
    "doctor": {"_version", "ops", "rows", "state"},
    "cli": {
        "_version",
        "progress",
        "scanning",
        "tasks",
        "distributed",
        "runs",
        "doctor",
        "models",
        "paper",
        "sources",
        "statistics",
        "state",
    },
    "__main__": {"cli"},
}


def room_of(path: Path) -> str:
    room = path.relative_to(ROOT).with_suffix("")
    return room.as_posix() if room.as_posix() in MAY_IMPORT else room.parts[0]


def imports_of(path: Path) -> set[str]:
    rooms = set()
    tree = ast.parse(path.read_text())
    # What only names a type (under TYPE_CHECKING) is not imported when the code runs.
    tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")]
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "fastaniso" else [f"fastaniso.{a.name}" for a in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "fastaniso" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms


MODULES = [p for p in sorted(ROOT.rglob("*.py")) if p != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=[str(p.relative_to(ROOT)) for p in MODULES])
def test_imports_flow_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in MAY_IMPORT, f"{room} is a new room: say here what it may import"
    assert imports_of(path) - {room} <= MAY_IMPORT[room]


def test_the_flow_has_no_circle() -> None:
    lazy = {("result", "report")}  # inside a method: report draws results, a result asks to be drawn
    seen: dict[str, bool] = {}

    def visit(room: str) -> None:
        assert seen.get(room) is not False, f"a circle through {room}"
        if room in seen:
            return
        seen[room] = False
        for other in MAY_IMPORT.get(room, set()):
            if (room, other) not in lazy:
                visit(other)
        seen[room] = True

    for room in MAY_IMPORT:
        visit(room)


@pytest.mark.parametrize("path", sorted((ROOT / "paper").rglob("*.py")), ids=lambda path: path.name)
def test_the_paper_uses_the_public_api_alone(path: Path) -> None:
    public = {"fastaniso", "fastaniso.report", "fastaniso.integrations", "fastaniso.paper"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert all(not a.name.startswith("fastaniso.") or a.name in public for a in node.names), ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "fastaniso":
            own = node.module.startswith("fastaniso.paper")
            assert own or node.module in public, ast.unparse(node)
            room = {"fastaniso.report": fastaniso.report, "fastaniso.integrations": fastaniso.integrations}
            if node.module in room:
                assert {a.name for a in node.names} <= set(room[node.module].__all__), ast.unparse(node)


def test_instruction_set_files_hold_no_logic() -> None:
    # What would be in one: a symbol built for a CPU that the caller's may not be.
    sources = ROOT.parent / "csrc" / "isa"
    if not sources.exists():
        pytest.skip("an installed package has no sources")
    for path in sources.glob("*.cpp"):
        lines = [line for line in path.read_text().splitlines() if line]
        assert all(line.startswith(("#define", "#include")) for line in lines), path
