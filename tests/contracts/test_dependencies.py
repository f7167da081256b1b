"""What routes depend on are coroutines: FastAPI runs a plain function in a thread, which a prediction waits for."""

from __future__ import annotations

import ast
from pathlib import Path

APP = Path(__file__).resolve().parents[2] / "app"


def test_dependencies_are_coroutines() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in APP.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    wanted = {
        argument.id
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Depends"
        for argument in node.args
        if isinstance(argument, ast.Name)
    }
    assert "get_caller" in wanted
    assert wanted <= {node.name for node in nodes if isinstance(node, ast.AsyncFunctionDef)}
    assert not wanted & {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
