"""What the way to an engine process costs a view: `python -m benchmarks.engine_hop`.

A network that does next to nothing answers views from a lane in this process and from one in an engine process: one
after another (the median), and 32 at once (views per second).
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.engine.device_access import ViewLane
from app.engine.lane import Lane
from app.engine.loaded_models import LoadedModel
from app.engine.remote.__main__ import main as run_engine
from app.engine.remote.connection import EngineConnection
from app.engine.remote.remote_lane import RemoteLane
from app.engine.remote.remote_models import RemoteModels
from app.engine.setup import LOOKUP_EVERY_S, open_models
from app.processes.engine_process import EngineProcess
from app.settings import ApiSettings
from models.manifest import IMAGENET_MEAN, IMAGENET_STD, ManifestDraft, Preset
from models.predictor import AnyPredictor
from models.predictors import loading
from models.predictors.classification import Classifier, ClassSelection
from models.store.registry import Registry

PRESET = Preset(resize_px=256, crop_px=224, mean=IMAGENET_MEAN, std=IMAGENET_STD)
VIEWS, WARM_UP, AT_ONCE = 2000, 200, 32
SELECTION = ClassSelection()


class Corner(nn.Module):
    """Looks at one pixel, so that nearly all of the time is the way there and back."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, 0, 0]  # [B, 3]


def corner(*_: Any) -> AnyPredictor:
    """In place of loading.load_version."""
    return Classifier(Corner(), categories=("red", "green", "blue"), preset=PRESET, device="cpu")


async def measure(lane: ViewLane, model: LoadedModel) -> str:
    """Both figures of one lane."""
    view = torch.randint(0, 256, (3, 224, 224), dtype=torch.uint8)
    model.best_batch = 8
    times = []
    for _ in range(WARM_UP + VIEWS):
        began_at = time.perf_counter()
        await lane.submit(model, lane.place(view), SELECTION, "interactive")
        times.append(time.perf_counter() - began_at)
    alone_ms = [1000 * seconds for seconds in times[WARM_UP:]]

    async def ask(count: int) -> None:
        for _ in range(count):
            await lane.submit(model, lane.place(view), SELECTION, "interactive")

    began_at = time.perf_counter()
    await asyncio.gather(*(ask(VIEWS // AT_ONCE) for _ in range(AT_ONCE)))
    rate = VIEWS // AT_ONCE * AT_ONCE / (time.perf_counter() - began_at)
    p50, p99 = statistics.median(alone_ms), statistics.quantiles(alone_ms, n=100)[98]
    return f"one at a time: p50 {p50:.3f} ms, p99 {p99:.3f} ms; {AT_ONCE} at once: {rate:.0f} views per second"


async def compare(home: Path) -> None:
    """Prints a line a lane."""
    settings = ApiSettings(
        _env_file=None, home=home, device="cpu", engine="process", backend="eager", log_level="WARNING"
    )
    registry = Registry(settings.registry_dir)
    draft = ManifestDraft(architecture="resnet18", categories=("red", "green", "blue"), preset=PRESET)
    registry.publish("corner", {"weight": torch.zeros(1)}, draft, now=datetime.now(UTC))
    models, builds = open_models(settings, registry, lookup_every_s=LOOKUP_EVERY_S, replicas=1)
    lane = Lane()
    print("in this process   ", await measure(lane, await models.get("corner")))
    async with EngineProcess(settings, program=[sys.executable, "-m", "benchmarks.engine_hop", "engine"]) as process:
        connection = EngineConnection(process.path, arena_bytes=2**26)
        remote_models, remote_lane = RemoteModels(connection, device=torch.device("cpu")), RemoteLane(connection)
        await connection.open()
        print("an engine process ", await measure(remote_lane, await remote_models.get("corner")))
        remote_lane.close()
    lane.close()
    await builds.close()
    await models.close()


if __name__ == "__main__":
    loading.load_version = corner  # type: ignore[assignment]
    if sys.argv[1:2] == ["engine"]:
        del sys.argv[1]
        run_engine()
    else:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(compare(Path(directory)))
