"""The same endpoint, tuned: the fastest decoder and backend, one process per core with one thread each."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

from fastapi import FastAPI, File

from benchmarks.serving.networks import decode_and_prepare
from benchmarks.serving.peers.settings import PeerSettings


def create_app() -> FastAPI:
    """For `uvicorn --factory --workers N`."""
    settings = PeerSettings.from_environment()
    network = settings.single_threaded_network(sizes=[1])
    preset = settings.preset
    lane = ThreadPoolExecutor(1)
    app = FastAPI()

    def classify(data: bytes) -> dict[str, float]:
        score, label = network(decode_and_prepare(preset, data).unsqueeze(0))[0].max(dim=0)
        return {"label": int(label), "score": float(score)}

    @app.post("/predict")
    async def predict(file: Annotated[bytes, File()]) -> dict[str, float]:
        return await asyncio.get_running_loop().run_in_executor(lane, classify, file)

    return app
