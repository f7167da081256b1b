"""An API whose detectors and segmentation networks are known: they find red and blue rectangles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import torch

from app.settings import ApiSettings
from models.architectures.catalog import get_architecture
from models.images.decode import encode_image
from models.manifest import ManifestDraft, Task
from models.predictor import AnyPredictor
from models.predictors import loading
from models.store.registry import Registry
from tests.app.compass import publish_compass
from tests.app.running_api import RunningApi, running_api
from tests.models.spotter import CATEGORIES, Rectangle, detector, picture, segmenter

_ARCHITECTURES: dict[str, tuple[Task, str]] = {
    "boxes": ("detection", "fasterrcnn_resnet50_fpn"),
    "masks": ("detection", "maskrcnn_resnet50_fpn"),
    "points": ("detection", "keypointrcnn_resnet50_fpn"),
    "painter": ("segmentation", "fcn_resnet50"),
}


def png(width: int, height: int, *rectangles: Rectangle) -> bytes:
    """An image of rectangles as a file."""
    return encode_image(picture(width, height, *rectangles), "png")


@contextmanager
def finders_api(settings: ApiSettings) -> Iterator[RunningApi]:
    """With the models `boxes`, `masks`, `points`, `painter`, and `compass`, which classifies."""
    with pytest.MonkeyPatch.context() as patched, running_api(settings) as api:
        patched.setattr(loading, "load_version", finders_from_version())
        publish_finders(api.services.registry)
        yield api


def publish_finders(registry: Registry) -> None:
    """Publishes the models of `finders_api`; what stands for their weights only `finders_from_version` loads."""
    publish_compass(registry)
    for name, (task, architecture) in _ARCHITECTURES.items():
        preset = get_architecture(architecture).scale_preset
        draft = ManifestDraft(task=task, architecture=architecture, categories=CATEGORIES, preset=preset)
        registry.publish(name, {"weight": torch.zeros(1)}, draft, now=datetime.now(UTC))


def finders_from_version() -> Callable[..., AnyPredictor]:
    """A stand-in for `loading.load_version`."""
    made: dict[str, AnyPredictor] = {
        "boxes": detector(),
        "masks": detector(masks=True),
        "points": detector(points=True),
        "painter": segmenter(),
    }
    original = loading.load_version

    def from_version(registry: Registry, version: Any, device: Any) -> AnyPredictor:
        manifest = version.manifest
        is_ours = manifest.name in made and manifest.parameters == 1  # other tests have models of these names too
        return made[manifest.name] if is_ours else original(registry, version, device)

    return from_version
