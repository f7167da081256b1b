"""Servers start without PyTorch's compiler, which is there all the same for whoever wants it."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from models.architectures.catalog import build, get_architecture
from models.manifest import ManifestDraft
from models.registry import Registry
from tests.app.compass import publish_compass

# what a server does from its start to its answers
SERVES = """
import sys
from app.light_imports import import_torchvision
import_torchvision()
from pathlib import Path
from app.settings import ApiSettings
from tests.app import pictures
from tests.app.running_api import running_api
home, redis_url = Path(sys.argv[1]), sys.argv[2]
settings = ApiSettings(_env_file=None, home=home, redis_url=redis_url, device="cpu", offline=True, backend="eager")
png = {"Content-Type": "image/png"}
with running_api(settings) as api:
    for path in sys.argv[3:]:
        answer = api.http.post(path, content=pictures.png(), headers=png)
        assert answer.status_code == 200, answer.text
compiler = [name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules]
assert compiler == [], compiler
"""
# what the stand-in is asked, and what others import afterwards
COMPILES = """
import sys
from app.light_imports import import_torchvision
import_torchvision()
assert "torch._dynamo" not in sys.modules
import torch, torchvision
from torchvision.ops import roi_align
asked = sys.modules["torchvision.ops.roi_align"].is_compile_supported
regions = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])]
before = roi_align(torch.ones(1, 1, 8, 8), regions, 2)
assert asked("cpu") in (True, False)
from torch._dynamo.utils import counters, is_compile_supported
assert asked("cpu") == is_compile_supported("cpu")
assert torch.compile(lambda value: value + 1, backend="eager")(torch.ones(2)).tolist() == [2.0, 2.0]
assert torch.equal(before, roi_align(torch.ones(1, 1, 8, 8), regions, 2))
disabled = torch.compiler.disable(lambda value: value)
assert disabled(3) == 3 and torch._dynamo.utils.counters is counters
"""
# another version of torchvision may ask for something else
ASKS_MORE = """
import sys
from app import light_imports
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
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
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
    run(SERVES, str(tmp_path), redis_url, "/v1/classify?model=compass", "/v1/segment?model=painter")


def test_compiler_is_there_for_who_wants_it() -> None:
    run(COMPILES)


def test_who_asks_for_more_gets_the_real_thing() -> None:
    run(ASKS_MORE)
