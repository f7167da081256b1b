"""The direction of imports, and what stays light. The rules are those of CONTRIBUTING.md and docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODELS_MAY_IMPORT = {
    "models",
    "torch",
    "torchvision",
    "PIL",
    "numpy",
    "anyascii",
    "pydantic",
    "safetensors",
    "simplejpeg",
    "contourpy",
    "cv2",
    "faster_coco_eval",
    "openvino",
    "nncf",
}
ONLY_IN = {
    "celery": {"workers/queue.py", "workers/tasks.py", "workers/main.py"},
    "kombu": {"workers/queue.py"},
    "redis": {"workers/jobs/redis_connection.py", "workers/jobs/records.py"},
}
SPEAK_REDIS = {"workers/jobs/records.py", "workers/jobs/events.py", "workers/jobs/idempotency_store.py"}
KEYS = "workers/jobs/redis_keys.py"
# what the API may know of the workers: jobs, their store and queue, datasets, and how a job is resolved
APP_MAY_IMPORT = (
    "workers.settings",
    "workers.queue",
    "workers.jobs.job",
    "workers.jobs.store",
    "workers.jobs.tally",
    "workers.jobs.idempotency_store",
    "workers.run_directory",
    "workers.configs",
    "workers.errors",
    "workers.log_lines",
    "workers.supervision.child_process",
    "workers.datasets",
    "workers.main",
)
LIGHT = ("app.schemas", "app.client", "app.cli")
HEAVY = ("torch", "fastapi", "celery", "matplotlib")


def imports(path: Path) -> Iterator[str]:
    """Every module that the file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            # `from package import module` names the module
            is_package = (ROOT / node.module.replace(".", "/")).is_dir()
            yield from (f"{node.module}.{alias.name}" if is_package else node.module for alias in node.names)


def sources(package: str) -> list[str]:
    """Paths of the package's files, relative to the project."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("source", sources("models"))
def test_models_know_torch_and_little_else(source: str) -> None:
    tops = {name.partition(".")[0] for name in imports(ROOT / source)}
    assert tops - MODELS_MAY_IMPORT <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("source", sources("workers"))
def test_workers_know_no_http_and_not_the_app(source: str) -> None:
    tops = {name.partition(".")[0] for name in imports(ROOT / source)}
    assert not tops & {"app", "fastapi", "starlette", "uvicorn", "httpx"}


@pytest.mark.parametrize("source", [*sources("app"), *sources("workers"), *sources("models")])
def test_celery_and_redis_have_their_rooms(source: str) -> None:
    tops = {name.partition(".")[0] for name in imports(ROOT / source)}
    for library, rooms in ONLY_IN.items():
        assert library not in tops or source in rooms


@pytest.mark.parametrize("source", [*sources("app"), *sources("workers"), *sources("models")])
def test_redis_is_spoken_to_by_few_and_under_keys_of_one_file(source: str) -> None:
    assert "workers.jobs.redis_connection" not in imports(ROOT / source) or source in SPEAK_REDIS
    code = ast.parse((ROOT / source).read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(code) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert source == KEYS or not [text for text in texts if text.startswith("fovea:")]


@pytest.mark.parametrize("source", sources("app"))
def test_app_knows_only_the_front_of_the_workers(source: str) -> None:
    names = [name for name in imports(ROOT / source) if name.partition(".")[0] == "workers"]
    assert [name for name in names if not name.startswith(APP_MAY_IMPORT)] == []


@pytest.mark.parametrize("source", [*sources("app"), *sources("workers"), *sources("models")])
def test_no_file_is_called_after_nothing(source: str) -> None:
    assert not set(Path(source).with_suffix("").parts) & {"utils", "helpers", "common", "misc", "base"}


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_without_the_heavy_ones(module: str) -> None:
    assert loaded_by(module).isdisjoint(HEAVY)


def test_worker_process_loads_without_torch() -> None:
    assert "torch" not in loaded_by("workers.main")


def loaded_by(module: str) -> set[str]:
    """Top-level names in `sys.modules` after the module and all its submodules were imported, in a fresh process."""
    code = (
        "import importlib, pkgutil, sys\n"
        f"module = importlib.import_module({module!r})\n"
        "if hasattr(module, '__path__') and module.__name__ != 'app.cli':\n"
        "    for found in pkgutil.walk_packages(module.__path__, module.__name__ + '.'):\n"
        "        importlib.import_module(found.name)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(answer.stdout.split())
