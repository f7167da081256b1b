"""Who may import whom, and what stays light: the rules of docs/architecture.md as data, and a test for each."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests import children

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("app", "workers", "models")
FILES_AT_A_PACKAGE_ROOT = 8  # at most, besides __init__.py: what everything else needs

# Rule 1: models imports the standard library and these.
MODELS_MAY_IMPORT = {
    "models",
    "torch",
    "torchvision",
    "PIL",
    "numpy",
    "pydantic",
    "safetensors",
    "simplejpeg",
    "contourpy",
    "cv2",
    "faster_coco_eval",
    "openvino",
    "nncf",
    "anyascii",
}

# Rule 2: workers knows no HTTP and not the app; Celery and Redis have their files.
WORKERS_MAY_NOT_IMPORT = {"app", "fastapi", "starlette", "uvicorn", "httpx"}
ONLY_IN = {
    "celery": {"workers/queue.py", "workers/tasks.py", "workers/main.py"},
    "kombu": {"workers/queue.py"},
    "redis": {"workers/jobs/redis_connection.py", "workers/jobs/records.py"},
    "workers.jobs.redis_connection": {
        "workers/jobs/records.py",
        "workers/jobs/events.py",
        "workers/jobs/idempotency_store.py",
    },
}
REDIS_KEYS = "workers/jobs/redis_keys.py"  # the only file with keys that begin with `fovea:`

# Rule 3: app knows the light part of the workers, and `fovea worker` starts their main.
APP_MAY_IMPORT = {
    "workers.settings",
    "workers.errors",
    "workers.log_lines",
    "workers.queue",
    "workers.run_directory",
    "workers.jobs.job",
    "workers.jobs.store",
    "workers.jobs.tally",
    "workers.jobs.idempotency_store",
    "workers.configs",
    "workers.datasets",
    "workers.supervision.child_process",
    "workers.main",
}
# What each room of app may know of app, besides itself.
ROOMS_OF_APP = {
    "schemas": set(),
    "client": {"schemas"},
    "processes": {"settings"},
    "engine": {"processes", "schemas", "settings"},
    "metrics": {"engine", "version"},
    "http": {"engine", "schemas", "errors", "settings"},
    "routes": {"http", "engine", "metrics", "schemas", "dependencies", "services", "errors", "version"},
    "protocols": {"http", "engine", "schemas", "dependencies", "services", "errors", "version"},
    "pages": {"routes", "schemas", "dependencies", "services"},
}
KNOW_NO_HTTP_SERVER = ("app/engine", "app/processes", "app/metrics", "app/schemas")
HTTP_SERVERS = {"fastapi", "starlette", "uvicorn"}
ROUTES_MAY_NOT_IMPORT = {"torch", "torchvision", "numpy", "models.store.state_dicts"}

# Rule 4: these load without the heavy libraries, so that `fovea --help` answers at once.
LIGHT = ("app.schemas", "app.client", "app.cli")
HEAVY = {"torch", "fastapi", "celery", "matplotlib"}

# Rule 5: whoever starts a process reads its settings and builds its objects; all others receive them.
STARTS_A_PROCESS = {
    "app/main.py",
    "app/engine/setup.py",  # the engine's part, for the API and for an engine process
    "app/engine/remote/__main__.py",
    "app/engine/builds/build_backend.py",
    "app/cli/connection.py",  # where the commands' server is
    "app/cli/settings_command.py",  # flags before the environment
    "workers/main.py",
    "workers/health.py",
    "workers/training/run.py",
    "workers/training/evaluate.py",
    "workers/training/run_inputs.py",
}
BUILT_AT_THE_START = {
    "ApiSettings",
    "WorkerSettings",
    "ServerAddress",
    "Registry",
    "DatasetStore",
    "JobStore",
    "IdempotencyStore",
}
DECLARE_SETTINGS = {"app/settings.py", "workers/settings.py", "app/cli/connection.py"}
READ_THE_ENVIRONMENT = {
    "app/cli/serve.py",  # which replica it is, and how OpenMP waits, before torch is loaded
    "app/metrics/shared_values.py",  # prometheus_client's own variable
    "app/main.py",  # which replica of the port it is
    "workers/supervision/child_process.py",  # a child gets its parent's
}

# Rule 6: a name says what is inside.
NAMES_THAT_SAY_NOTHING = {"utils", "helpers", "common", "misc", "base"}


def sources(directory: str) -> list[str]:
    """Paths of the Python files below it, relative to the project."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / directory).rglob("*.py"))


ALL = [source for package in PACKAGES for source in sources(package)]


@cache
def parsed(source: str) -> ast.Module:
    return ast.parse((ROOT / source).read_text(encoding="utf-8"))


@cache
def imports(source: str) -> frozenset[str]:
    """Every module that the file imports, wherever in it."""
    return frozenset(_imports(source))


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: relative import"
            assert node.module is not None
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if is_module(name) else node.module


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def is_within(module: str, packages: Iterable[str]) -> bool:
    """Whether the module is one of these, or below one of them."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def offences(sources: Iterable[str], forbidden: Iterable[str]) -> list[str]:
    """Which of the files imports something forbidden."""
    return [f"{source}: {name}" for source in sources for name in sorted(imports(source)) if is_within(name, forbidden)]


def test_models_know_torch_and_little_else() -> None:
    allowed = MODELS_MAY_IMPORT | sys.stdlib_module_names
    assert [f"{each}: {name}" for each in sources("models") for name in imports(each) if top(name) not in allowed] == []


def test_workers_know_no_http_and_not_the_app() -> None:
    assert offences(sources("workers"), WORKERS_MAY_NOT_IMPORT) == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_celery_and_redis_have_their_files(library: str) -> None:
    assert offences([source for source in ALL if source not in ONLY_IN[library]], [library]) == []


def test_keys_of_redis_are_in_one_file() -> None:
    texts = [
        (source, node.value)
        for source in ALL
        if source != REDIS_KEYS
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [(source, text) for source, text in texts if text.startswith("fovea:")] == []


def test_app_knows_only_the_light_part_of_the_workers() -> None:
    known = [(source, name) for source in sources("app") for name in imports(source) if top(name) == "workers"]
    assert [(source, name) for source, name in known if not is_within(name, APP_MAY_IMPORT)] == []


@pytest.mark.parametrize("room", ROOMS_OF_APP)
def test_room_of_the_app_knows_only_the_rooms_below_it(room: str) -> None:
    allowed = [f"app.{name}" for name in ROOMS_OF_APP[room] | {room}]
    known = [(source, name) for source in sources(f"app/{room}") for name in imports(source) if top(name) == "app"]
    assert [(source, name) for source, name in known if not is_within(name, allowed)] == []


@pytest.mark.parametrize("room", KNOW_NO_HTTP_SERVER)
def test_room_that_serves_no_http_knows_no_http_server(room: str) -> None:
    assert offences(sources(room), HTTP_SERVERS) == []


def test_routes_touch_no_tensor() -> None:
    assert offences(sources("app/routes"), ROUTES_MAY_NOT_IMPORT) == []


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_without_the_heavy_ones(module: str) -> None:
    assert loaded_by(module).isdisjoint(HEAVY)


def test_worker_process_loads_without_torch() -> None:
    assert "torch" not in loaded_by("workers.main")


def test_objects_are_built_where_a_process_starts() -> None:
    built = [
        f"{source}:{node.lineno}: {node.func.id}"
        for source in ALL
        if source not in STARTS_A_PROCESS
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BUILT_AT_THE_START
    ]
    assert built == []


def test_settings_are_declared_in_few_files() -> None:
    assert {source for source in ALL if "pydantic_settings" in imports(source)} == DECLARE_SETTINGS


def test_environment_is_read_by_few() -> None:
    words = {"environ", "environb", "getenv"}
    readers = {
        source
        for source in ALL
        for node in ast.walk(parsed(source))
        if (isinstance(node, ast.Attribute) and node.attr in words)
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and words & {name.name for name in node.names})
    }
    assert readers == READ_THE_ENVIRONMENT


def test_names_of_files_say_something() -> None:
    assert [source for source in ALL if set(Path(source).with_suffix("").parts) & NAMES_THAT_SAY_NOTHING] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_package_root_holds_few_files(package: str) -> None:
    files = {path.name for path in (ROOT / package).glob("*.py")} - {"__init__.py"}
    assert len(files) <= FILES_AT_A_PACKAGE_ROOT, sorted(files)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module_of(source): imports(source) for source in ALL}
    reached = {module: reachable(module, graph) for module in graph}
    circles = {
        frozenset({module, *(other for other in found if module in reached[other])})
        for module, found in reached.items()
        if module in found
    }
    assert [sorted(circle) for circle in circles] == []


def reachable(start: str, graph: dict[str, frozenset[str]]) -> set[str]:
    """The modules that `start` imports, and those that they import, and so on: itself too, if it is in a circle."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = {name for name in graph[waiting.pop()] if name in graph} - found
        found |= new
        waiting += new
    return found


def module_of(source: str) -> str:
    return source.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def top(module: str) -> str:
    return module.partition(".")[0]


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
    answer = children.run([sys.executable, "-c", code])
    return set(answer.stdout.split())
