"""A BentoML service as its documentation writes one for images."""

# No `from __future__ import annotations`: BentoML reads the types as they are.

import bentoml
import torch
from PIL.Image import Image
from torchvision.models import get_model_weights

from benchmarks.serving.networks import stock_module
from benchmarks.serving.peers.settings import PeerSettings


@bentoml.service  # type: ignore[untyped-decorator, unused-ignore]
class Classify:
    """Pillow, torchvision's transforms, eager float32."""

    def __init__(self) -> None:
        settings = PeerSettings.from_environment()
        self.model = stock_module(settings.architecture, settings.weights, categories=settings.categories)
        self.transform = get_model_weights(settings.architecture).DEFAULT.transforms()

    @bentoml.api  # type: ignore[untyped-decorator, unused-ignore]
    def predict(self, file: Image) -> dict[str, float]:
        """The likeliest category."""
        with torch.no_grad():
            scores = self.model(self.transform(file.convert("RGB")).unsqueeze(0)).softmax(dim=1)
        score, label = scores[0].max(dim=0)
        return {"label": int(label), "score": float(score)}
