"""Servers start without PyTorch's compiler. It is imported when something needs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from models.architectures.catalog import build, get_architecture
from models.manifest import ManifestDraft
from models.store.registry import Registry
from tests import children
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.served_api import ServedApi
from tests.redis_server import free_port
from tests.waiting import PATIENCE_S, wait_until

# `fovea serve`, which prints at its end what it has imported of the compiler
SERVES = """
import atexit, sys
from app.cli import main
def tell():
    print("compiler:", [name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
atexit.register(tell)
sys.argv[1:1] = ["serve"]
main()
"""
# Loading weights builds empty networks first. The two that are left out run on an empty image while they are built.
BUILDS = """
import sys
from app.processes.light_imports import import_torchvision
import_torchvision()
import httpx

from models.architectures.catalog import build_empty, names
for name in set(names()) - {"ssd300_vgg16", "ssdlite320_mobilenet_v3_large"}:
    build_empty(name, num_categories=2)
    assert "torch._dynamo" not in sys.modules, name
"""
# The stand-in answers its one question, and others import the real modules afterwards.
COMPILES = """
import sys
import torch
disable = torch.compiler.disable
from app.processes.light_imports import import_torchvision
import_torchvision()
assert "torch._dynamo" not in sys.modules and torch.compiler.disable is disable
import torchvision
from torchvision.ops import roi_align
asked = sys.modules["torchvision.ops.roi_align"].is_compile_supported
regions = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])]
before = roi_align(torch.ones(1, 1, 8, 8), regions, 2)
assert asked("cpu") in (True, False)
from torch._dynamo.utils import counters, is_compile_supported
assert asked("cpu") == is_compile_supported("cpu")
assert torch.compile(lambda value: value + 1, backend="eager")(torch.ones(2)).tolist() == [2.0, 2.0]
assert torch.equal(before, roi_align(torch.ones(1, 1, 8, 8), regions, 2))
assert torch._dynamo.utils.counters is counters
"""
# Another version of torchvision may import something else.
ASKS_MORE = """
import sys
from app.processes import light_imports
stand_in = light_imports._Utilities("torch._dynamo.utils")
sys.modules["torch._dynamo.utils"] = stand_in
from torch._dynamo.utils import counters, is_compile_supported
import torch._dynamo.utils
assert torch._dynamo.utils is not stand_in and torch._dynamo.utils.counters is counters
assert is_compile_supported("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
stand_in.remove()
assert sys.modules["torch._dynamo.utils"] is torch._dynamo.utils
"""


# Another version of torch or torchvision may not work with the stand-ins at all.
FALLS_BACK = """
import logging, sys, torch
from app.processes import light_imports
disable = torch.compiler.disable
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
def fails(*arguments, **options):
    raise AttributeError("not in this version")
{breaks}
light_imports.import_torchvision()
assert "torch._dynamo" in sys.modules and torch.compiler.disable is disable
from torch._dynamo.utils import is_compile_supported
import torchvision
assert sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu") == is_compile_supported("cpu")
boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.9]])
assert torchvision.ops.nms(boxes, torch.tensor([0.5, 0.6]), 0.5).tolist() == [1]
from torchvision.transforms.v2 import functional
image = torchvision.tv_tensors.Image(torch.zeros(3, 8, 8, dtype=torch.uint8))
assert functional.resize(image, [4, 4]).shape == (3, 4, 4)
from models.architectures.catalog import build
build("fasterrcnn_fpn", num_categories=2)
"""
MISFITS = {
    "another name in the module": "del light_imports._Utilities.is_compile_supported\n"
    "light_imports._Utilities.__getattr__ = fails",
    "another use of the decorator": "light_imports._unchanged = fails",
}
# A torchvision that checks what it decorates with.
STRICT_TORCHVISION = """
import torch
if torch.compiler.disable.__module__ != "torch.compiler":
    raise TypeError("this is not torch.compiler.disable")
"""


def run(program: str, *, first_on_path: Path | None = None) -> str:
    """What the program prints."""
    path = os.pathsep.join(str(folder) for folder in (first_on_path, children.PROJECT_DIR) if folder)
    environment = {**os.environ, "PYTHONPATH": path}
    ended = children.run([sys.executable, "-W", "error", "-c", program], check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def publish(registry: Registry, name: str, architecture_name: str) -> None:
    """Random weights."""
    architecture = get_architecture(architecture_name)
    draft = ManifestDraft(
        task=architecture.tasks[0],
        architecture=architecture_name,
        categories=("ants", "bees"),
        preset=architecture.scale_preset,
    )
    weights = build(architecture_name, num_categories=2).state_dict()
    registry.publish(name, weights, draft, now=datetime.now(UTC))


def test_server_that_answers_has_not_loaded_the_compiler(tmp_path: Path, redis_url: str) -> None:
    registry = Registry(tmp_path / "registry")
    publish_compass(registry)
    publish(registry, "painter", "lraspp_mobilenet_v3_large")
    port = free_port()
    settings = {"FOVEA_HOME": str(tmp_path), "FOVEA_REDIS_URL": redis_url, "FOVEA_DEVICE": "cpu"}
    settings |= {"FOVEA_OFFLINE": "true", "FOVEA_BACKEND": "eager"}
    command, environment = [sys.executable, "-c", SERVES, "--port", str(port)], {**os.environ, **settings}
    with children.child(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as http:
            wait_until(lambda: ServedApi(process=server, http=http).answers())
            for path in ("/v1/classify?model=compass", "/v1/segment?model=painter"):
                answer = http.post(path, content=pictures.png(), headers={"Content-Type": "image/png"})
                assert answer.status_code == 200
            assert http.get("/v1/architectures/convnext_tiny").status_code == 200
        server.send_signal(signal.SIGINT)  # after SIGTERM nothing is said
        said, _ = server.communicate(timeout=PATIENCE_S)
    assert said == "compiler: []\n"


def test_networks_are_built_empty_without_the_compiler() -> None:
    run(BUILDS)


def test_compiler_is_imported_when_it_is_needed() -> None:
    run(COMPILES)


def test_other_names_come_from_the_real_module() -> None:
    run(ASKS_MORE)


@pytest.mark.parametrize("misfit", MISFITS)
def test_versions_that_do_not_fit_are_imported_the_ordinary_way(misfit: str) -> None:
    printed = run(FALLS_BACK.format(breaks=MISFITS[misfit]))

    assert printed.startswith("torchvision is imported with PyTorch's compiler, because without it: ")


def test_torchvision_that_wants_the_real_decorator_gets_it(tmp_path: Path) -> None:
    package = tmp_path / "torchvision" / "transforms" / "v2"
    package.mkdir(parents=True)
    (tmp_path / "torchvision" / "__init__.py").touch()
    (tmp_path / "torchvision" / "transforms" / "__init__.py").touch()
    (package / "__init__.py").write_text(STRICT_TORCHVISION)
    program = "from app.processes.light_imports import import_torchvision as it; it(); import torchvision.transforms.v2"

    printed = run(f"{program}; print(torchvision.transforms.v2.__file__)", first_on_path=tmp_path)
    assert printed == f"{package / '__init__.py'}\n"


def test_broken_torchvision_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise OSError('libcuda is missing')")
    program = (
        "from app.processes.light_imports import import_torchvision as it\ntry: it()\nexcept OSError as e: print(e)"
    )

    assert run(program, first_on_path=tmp_path) == "libcuda is missing\n"
