"""`python -m benchmarks.serving.peers.litserve_stock PORT`: LitServe as its README writes a vision model."""

# No `from __future__ import annotations`: LitServe reads the types as they are.

import sys
from typing import cast

import litserve
import torch
from PIL import Image
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from torch import Tensor
from torchvision.models import get_model_weights

from benchmarks.serving.load import HOST
from benchmarks.serving.networks import stock_module
from benchmarks.serving.peers.settings import PeerSettings


class Classify(litserve.LitAPI):  # type: ignore[misc]  # it has no types where it is not installed
    """Pillow, torchvision's transforms, eager float32."""

    def setup(self, device: str) -> None:
        settings = PeerSettings.from_environment()
        self.model = stock_module(settings.architecture, settings.weights, categories=settings.categories).to(device)
        self.transform = get_model_weights(settings.architecture).DEFAULT.transforms()

    def decode_request(self, request: Request) -> Tensor:
        uploaded = cast("UploadFile", cast("FormData", request)["file"])  # a form comes as its fields
        image = Image.open(uploaded.file).convert("RGB")
        batch: Tensor = self.transform(image).unsqueeze(0)
        return batch

    def predict(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            scores: Tensor = self.model(images).softmax(dim=1)
            return scores[0]

    def encode_response(self, scores: Tensor) -> dict[str, float]:
        score, label = scores.max(dim=0)
        return {"label": int(label), "score": float(score)}


if __name__ == "__main__":
    litserve.LitServer(Classify(), accelerator="cpu").run(
        host=HOST, port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
