"""A process that gives an engine work and waits for it: `python -m tests.app.engine_client SOCKET VIEWS`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import torch

from app.engine.remote.connection import EngineConnection
from app.engine.remote.remote_lane import RemoteLane
from app.engine.remote.remote_models import RemoteModels
from models.predictors.classification import ClassSelection


async def wait_for_views(path: Path, count: int) -> None:
    """Of the model `compass`."""
    connection = EngineConnection(path, arena_bytes=2**20)
    models = RemoteModels(connection, device=torch.device("cpu"))
    lane = RemoteLane(connection)
    await connection.open()
    model = await models.get("compass")
    view = torch.zeros(1, 28, 28, dtype=torch.uint8)
    await asyncio.gather(*(lane.submit(model, view, ClassSelection(), "interactive") for _ in range(count)))


if __name__ == "__main__":
    asyncio.run(wait_for_views(Path(sys.argv[1]), int(sys.argv[2])))
