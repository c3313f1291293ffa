"""Every wait of the package has a bound, or says on its line why it needs none: ``# unbounded: reason``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "flexray"
MARK = "# unbounded: "
#: Methods that wait for ever when they are called without an argument, or with ``None``.
BARE = {"wait", "get", "join", "acquire", "communicate", "result", "exception", "select", "poll"}
#: ... but these are no waits: what a context variable holds, whether a process has ended, and making a ``poll``.
NO_WAITS = {("running", "get"), ("process", "poll"), ("_process", "poll"), ("_stuck", "poll"), ("select", "poll")}
RUNS = {"run", "call", "check_call", "check_output"}


def unbounded(source: str) -> Iterator[tuple[int, str]]:
    """(line, what) of each wait in a module that has no bound and no reason."""
    tree, lines = ast.parse(source), source.splitlines()
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "asyncio.wait_for" and len(node.args) > 1:
            inside.update(ast.walk(node.args[0]))
    for node in ast.walk(tree):
        what = waits(node) if node not in inside else ""
        if what and isinstance(node, (ast.Call, ast.Await)):
            own = lines[node.lineno - 1 : node.end_lineno]
            if not any(MARK in line and line.partition(MARK)[2].strip() for line in own):
                yield node.lineno, what


def waits(node: ast.AST) -> str:
    """The wait that a node is, when nothing bounds it; "" otherwise."""
    if isinstance(node, ast.Await):
        value = node.value
        bare = isinstance(value, (ast.Name, ast.Attribute, ast.Subscript))
        remote = isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "remote"
        return ast.unparse(node) if bare or remote else ""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return ""
    name, words = node.func.attr, ast.unparse(node.func)
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    timeout = next((k.value for k in node.keywords if k.arg == "timeout"), None)
    bounded = timeout is not None and not _is_none(timeout)
    if words in ("ray.get", "ray.wait") or (words.startswith("subprocess.") and name in RUNS):
        return "" if bounded else words
    if words == "fcntl.flock":
        return "" if "LOCK_NB" in ast.unparse(node) else words
    if words == "select.select":
        return "" if len(node.args) > 3 else words
    if name == "wait_for" and words != "asyncio.wait_for":
        return words if len(given) < 2 else ""
    receiver = ast.unparse(node.func.value).rpartition(".")[2]
    if name in BARE and (receiver, name) not in NO_WAITS and all(map(_is_none, given)):
        return words
    return ""


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_wait_has_a_bound_or_a_reason(path: Path) -> None:
    assert [f"{path}:{line}: {what}" for line, what in unbounded(path.read_text())] == []


@pytest.mark.parametrize(
    "line",
    [
        "ray.get(x)",
        "ray.get(x, timeout=None)",
        "event.wait()",
        "event.wait(None)",
        "condition.wait_for(ready)",
        "inbox.get()",
        "thread.join()",
        "lock.acquire()",
        "process.communicate()",
        "future.result()",
        "subprocess.run(['x'])",
        "selector.select()",
        "poll.poll()",
        "fcntl.flock(file, fcntl.LOCK_EX)",
        "async def f(): await reference",
        "async def f(): await actor.method.remote()",
        "event.wait()  # unbounded: ",
    ],
)
def test_it_sees_one_without(line: str) -> None:
    assert list(unbounded(line))


@pytest.mark.parametrize(
    "line",
    [
        "ray.get(x, timeout=3)",
        "event.wait(3)",
        "condition.wait_for(ready, 3)",
        "inbox.get(timeout=3)",
        "', '.join(names)",
        "table.get(key)",
        "thread.join(3)",
        "subprocess.run(['x'], timeout=3)",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "async def f(): await asyncio.wait_for(event.wait(), 3)",
        "event.wait()  # unbounded: the slice's life",
    ],
)
def test_it_sees_that_one_has(line: str) -> None:
    assert not list(unbounded(line))
