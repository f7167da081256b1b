"""Networks small enough to be compiled by a test, and a compiler that needs nothing."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from models.backends.backend import Backend, BackendName
from models.backends.compiler import BuildRequest
from models.backends.eager import EagerBackend
from models.backends.graphs import ClassificationGraph, SegmentationGraph
from models.manifest import IMAGENET_MEAN, IMAGENET_STD, Preset, ScalePreset
from models.precision import Precision

PRESET = Preset(resize_px=32, crop_px=32, mean=IMAGENET_MEAN, std=IMAGENET_STD)
SCALE_PRESET = ScalePreset(shorter_px=48, longer_px=96)


class _Classifier(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 5, padding=2), nn.ReLU(), nn.Conv2d(width, width, 5, padding=2)
        )
        self.head = nn.Linear(width, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return 8 * logits


class _Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 5, 3, stride=4, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = nn.functional.interpolate(self.features(images), size=images.shape[-2:], mode="bilinear")
        return {"out": 8 * found}


def small_classifier(*, width: int = 8, seed: int = 0) -> EagerBackend:
    """Four categories of images of 32 px. width: channels of its layers; 64 take it tens of milliseconds."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return EagerBackend(ClassificationGraph(_Classifier(width), PRESET), "cpu")


def small_segmenter() -> EagerBackend:
    """Five categories, images of any size."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EagerBackend(SegmentationGraph(_Segmenter(), SCALE_PRESET), "cpu")


class StandIn:
    """Stores one number: what the eager network's answers are multiplied by."""

    name: BackendName = "openvino"
    precisions: frozenset[Precision] = frozenset({"float32", "bfloat16"})
    libraries: tuple[str, ...] = ()

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def why_not(self, device: torch.device) -> str | None:
        return None

    def build(self, request: BuildRequest) -> None:
        (request.directory / "gain.json").write_text(json.dumps(self.gain))

    def load(self, request: BuildRequest) -> Backend:
        return Scaled(request.eager, gain=json.loads((request.directory / "gain.json").read_text()))


class StandInOfIntegers(StandIn):
    """The same, in int8."""

    precisions: frozenset[Precision] = frozenset({"int8"})


class Scaled:
    """Another backend whose answers are multiplied."""

    name: BackendName = "openvino"
    precision: Precision = "float32"
    size_bytes = 4

    def __init__(self, other: Backend, *, gain: float) -> None:
        self._other = other
        self._gain = gain

    def run(self, batch: Tensor) -> Any:
        return self._other.run(batch) * self._gain
