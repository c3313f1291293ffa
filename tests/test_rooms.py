"""Which room may import which: the doors of the package, checked in the source."""

from __future__ import annotations

import ast
import graphlib
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1] / "flexray"
#: room -> rooms it may import. ``errors`` is open to all; the front door is ``__init__``.
DOORS: dict[str, set[str]] = {
    "errors": set(),
    "model": set(),
    "catalog": {"model"},
    "config": {"model", "queue_file"},
    "queue_file": {"model"},
    "core": {"model"},
    "policies": {"model", "core"},
    "build": {"model", "catalog", "core", "policies", "config"},
    "devices": {"model", "catalog"},
    "telemetry": {"model"},
    "accounting": {"model"},
    "dashboard": {"model", "accounting"},
    "sim": {"model", "catalog", "config", "queue_file", "core", "build"},
    "runtime": {"model", "catalog", "config", "queue_file", "core", "build", "devices", "telemetry", "accounting"},
    "future": {"model", "runtime"},
    "tasks": {"model", "runtime", "future"},
    "executor": {"tasks", "future"},
    "progress": {"future", "runtime", "tables"},
    "joblib": {"executor", "__init__"},
    "serving": {"model", "devices", "tasks", "future", "__init__"},
    "demo": {"model", "tasks", "future", "__init__"},
    "tables": {"model", "accounting"},
    "cli": {
        "tables",
        "model",
        "config",
        "queue_file",
        "sim",
        "runtime",
        "dashboard",
        "telemetry",
        "devices",
        "demo",
        "accounting",
    },
    "__init__": {"model", "config", "runtime", "tasks", "future", "executor", "progress"},
    "__main__": {"cli"},
}
#: third-party module -> rooms where it may appear.
OUTSIDE = {
    "ray": {"runtime", "serving"},
    "aiohttp": {"dashboard", "serving"},
    "starlette": {"serving"},
    "pydantic": {"config", "queue_file", "sim"},
    "opentelemetry": {"telemetry"},
    "numpy": {"core", "policies", "sim"},
    "yaml": {"queue_file", "sim"},
    "pyarrow": {"sim"},
    "scipy": {"policies", "sim"},
    "pynvml": {"devices"},
    "torch": {"runtime", "demo"},
    "fsspec": {"runtime"},
    "sklearn": {"demo"},
    "joblib": {"joblib"},
    "IPython": {"progress"},
    "click": {"cli"},
    "rich": {"demo", "tables", "tasks"},
}
IMPURE = {"time", "random", "os", "logging", "uuid", "datetime", "secrets", "asyncio", "threading", "socket"}
PURE_ROOMS = {"model", "core", "policies", "build", "accounting"}
STANDARD_LIBRARY_ONLY = {"model", "errors"}


def room_of(path: pathlib.Path, root: pathlib.Path) -> str:
    return path.relative_to(root).parts[0].removesuffix(".py")


def imports(path: pathlib.Path, root: pathlib.Path) -> Iterator[tuple[str, int]]:
    """Absolute names a file imports, anywhere in it, with their lines."""
    package = ("flexray", *path.relative_to(root).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join(base + ((node.module,) if node.module else ()))
            if module == "flexray":  # from flexray import core / from . import core
                yield from ((f"flexray.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def problems(root: pathlib.Path = ROOT) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        room = room_of(path, root)
        if room not in DOORS:
            found.append(f"{path.relative_to(root)}: the room {room} has no doors yet")
            continue
        for name, line in imports(path, root):
            top, *rest = name.split(".")
            where = f"{path.relative_to(root)}:{line}"
            target = (rest[0] if rest and rest[0] in DOORS else "__init__") if top == "flexray" else ""
            if target and target not in {room, "errors", *DOORS[room]}:
                found.append(f"{where}: {room} may not import {target}")
            elif room not in OUTSIDE.get(top, {room}):
                found.append(f"{where}: {top} is not allowed in {room}")
            elif room in STANDARD_LIBRARY_ONLY and top in OUTSIDE:
                found.append(f"{where}: {room} is standard library only, no {top}")
            elif top in IMPURE and room in PURE_ROOMS:
                found.append(f"{where}: {room} must stay pure, no {top}")
    return found


def test_doors_have_no_cycle() -> None:
    inside = {room: doors - {"__init__"} for room, doors in DOORS.items()}
    assert set(graphlib.TopologicalSorter(inside).static_order()) == set(DOORS)


def test_rooms() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("file", "source", "problem"),
    [
        ("core/a.py", "import ray", "ray is not allowed in core"),
        ("core/a.py", "def f():\n    from time import monotonic", "core must stay pure, no time"),
        (
            "core/a.py",
            "if TYPE_CHECKING:\n    from .. import runtime",
            "core may not import runtime",
        ),
        ("core/a.py", "from flexray.config import PoolConfig", "core may not import config"),
        ("sim/a.py", "from flexray.runtime.client import Client", "sim may not import runtime"),
        ("runtime/a.py", "import flexray.sim", "runtime may not import sim"),
        ("model/a.py", "import pydantic", "pydantic is not allowed in model"),
        ("core/a.py", "import flexray", "core may not import __init__"),
        ("attic/a.py", "", "the room attic has no doors"),
    ],
)
def test_a_wrong_import_is_seen(tmp_path: pathlib.Path, file: str, source: str, problem: str) -> None:
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(source)
    assert [problem in line for line in problems(tmp_path)] == [True]
