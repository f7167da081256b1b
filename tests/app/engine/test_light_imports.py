"""Servers start without PyTorch's compiler, which is there all the same for whoever wants it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx

from models.architectures.catalog import build, get_architecture
from models.manifest import ManifestDraft
from models.store.registry import Registry
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.served_api import PROJECT_DIR, ServedApi
from tests.redis_server import free_port
from tests.waiting import wait_until

# `fovea serve`, which says at its end what it has of the compiler
SERVES = """
import atexit, sys
from app.cli import main
def tell():
    print("compiler:", [name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
atexit.register(tell)
sys.argv[1:1] = ["serve"]
main()
"""
# loading weights begins with it; every architecture but those that try themselves on an empty image
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
# what the stand-in is asked, and what others import afterwards
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
# another version of torchvision may ask for something else
ASKS_MORE = """
import sys
from app.processes import light_imports
stand_in = light_imports._Utilities("torch._dynamo.utils")
sys.modules["torch._dynamo.utils"] = stand_in
from torch._dynamo.utils import counters, is_compile_supported
import torch._dynamo.utils
assert torch._dynamo.utils is not stand_in and torch._dynamo.utils.counters is counters
assert is_compile_supported("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
stand_in.step_back()
assert sys.modules["torch._dynamo.utils"] is torch._dynamo.utils
"""


def run(program: str, *arguments: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT_DIR)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


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
    with subprocess.Popen(
        [sys.executable, "-c", SERVES, "--port", str(port)],
        env={**os.environ, **settings, "PYTHONPATH": str(PROJECT_DIR)},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
                wait_until(lambda: ServedApi(process=server, http=http).answers(), deadline_s=180)
                for path in ("/v1/classify?model=compass", "/v1/segment?model=painter"):
                    answer = http.post(path, content=pictures.png(), headers={"Content-Type": "image/png"})
                    assert answer.status_code == 200
                assert http.get("/v1/architectures/convnext_tiny").status_code == 200
            server.send_signal(signal.SIGINT)  # after SIGTERM nothing is said
            said, _ = server.communicate(timeout=60)
        finally:
            server.kill()
    assert said == "compiler: []\n"


def test_networks_are_built_empty_without_the_compiler() -> None:
    run(BUILDS)


def test_compiler_is_there_for_who_wants_it() -> None:
    run(COMPILES)


def test_who_asks_for_more_gets_the_real_thing() -> None:
    run(ASKS_MORE)
