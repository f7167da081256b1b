"""Tests wait in one way, `tests/waiting.py`, and start processes in one way, `tests/children.py`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
DEADLINES = {"timeout", "timeout_s", "deadline_s", "grace_s"}
WAITS = {"acquire", "join", "result", "settimeout", "timeout", "wait", "wait_for"}
CLOCKS = {"monotonic", "perf_counter"}
STARTERS = {"Popen", "run", "call", "check_call", "check_output"}


@cache
def sources() -> dict[str, list[ast.AST]]:
    """All nodes of every file of the tests."""
    return {
        str(path.relative_to(TESTS)): list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        for path in sorted(TESTS.rglob("*.py"))
    }


def deadlines(node: ast.AST) -> Iterator[ast.expr]:
    """Numbers that end a wait, as in `wait(5)`, `to_thread(event.wait, 5)` and `timeout=5`."""
    for value in deadline_values(node):
        numbers = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
        yield from (number for number in numbers if is_number(number))


def deadline_values(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.keyword(arg=name, value=value) if name in DEADLINES:
            return [value]
        case ast.Call(func=called, args=[_, *rest]) if name_of(called) == "wait_for":
            return rest
        case ast.Call(func=called, args=[value]) if name_of(called) in WAITS:
            return [value]
        case ast.Call(args=[waits, *rest]) if name_of(waits) in WAITS:
            return rest
        case ast.Assign(targets=[target], value=value) if name_of(target) in DEADLINES:
            return [value]
    return []


def stopwatches(node: ast.AST) -> Iterator[ast.expr]:
    """Comparisons of a clock with a number: a busy machine fails them, and a quick one proves nothing by them."""
    if isinstance(node, ast.Compare) and any(is_number(side) for side in node.comparators):
        parts = [part for part in ast.walk(node) if isinstance(part, ast.Call) and name_of(part.func) in CLOCKS]
        yield from parts[:1]


def starts(node: ast.AST) -> Iterator[ast.expr]:
    """Processes that could outlive the tests."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="subprocess"), attr=name)) if name in STARTERS:
            yield node


def name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


@pytest.mark.parametrize(
    ("rule", "home", "instead"),
    [
        (deadlines, "waiting.py", "PATIENCE_S or BRIEF_S of tests/waiting.py"),
        (stopwatches, "waiting.py", "an event that happens, or does not, before another"),
        (starts, "children.py", "tests/children.py"),
    ],
)
def test_waits_and_processes_have_one_home(
    rule: Callable[[ast.AST], Iterator[ast.expr]], home: str, instead: str
) -> None:
    found = [
        f"{path}:{place.lineno}"
        for path, nodes in sources().items()
        if path != home
        for node in nodes
        for place in rule(node)
    ]
    assert not found, f"Use {instead}: {', '.join(found)}"


@pytest.mark.parametrize(
    "source",
    [
        "event.wait(5)",
        "asyncio.wait_for(watch(), 5)",
        "await asyncio.to_thread(event.wait, 5)",
        "fetch(timeout=5.0)",
        "timeout_s = 0.3 if expires else 30",
    ],
)
def test_number_that_ends_a_wait_is_found(source: str) -> None:
    assert [place for node in ast.walk(ast.parse(source)) for place in deadlines(node)]


@pytest.mark.parametrize("source", ["'x'.join(parts)", "fetch(timeout=2 * PATIENCE_S)", "patience.wait(error, 5.0)"])
def test_other_numbers_are_left_alone(source: str) -> None:
    assert [place for node in ast.walk(ast.parse(source, mode="exec")) for place in deadlines(node)] == []
