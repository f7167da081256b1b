"""A classifier as FastAPI's and PyTorch's tutorials write it: Pillow, torchvision's transforms, eager float32."""

from __future__ import annotations

from io import BytesIO

import torch
from fastapi import FastAPI, UploadFile
from PIL import Image
from torchvision.models import get_model_weights

from benchmarks.serving.networks import stock_module
from benchmarks.serving.peers.settings import PeerSettings


def create_app() -> FastAPI:
    """For `uvicorn --factory`."""
    settings = PeerSettings.from_environment()
    model = stock_module(settings.architecture, settings.weights, categories=settings.categories)
    transform = get_model_weights(settings.architecture).DEFAULT.transforms()
    app = FastAPI()

    @app.post("/predict")
    async def predict(file: UploadFile) -> dict[str, float]:
        image = Image.open(BytesIO(await file.read())).convert("RGB")
        with torch.no_grad():
            scores = model(transform(image).unsqueeze(0)).softmax(dim=1)
        score, label = scores[0].max(dim=0)
        return {"label": int(label), "score": float(score)}

    return app
