"""A network whose answers are known: it says which half of an image is brighter, and how much.

Every convolution passes the brightness on, the first linear layer subtracts the right half from the left one. So a test
sees whether an image arrived upright, whole and with the right grey levels.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from models.architectures.catalog import build, get_architecture
from models.manifest import DatasetReference, ManifestDraft
from models.store.registry import ModelVersion, Registry

CATEGORIES = ("left", "right")


def compass_weights(*, gain: float = 2.0) -> dict[str, Tensor]:
    """The state_dict. gain: how sure it is; negative, it says the opposite."""
    weights = {
        key: torch.zeros_like(tensor)
        for key, tensor in build("garment_classifier", num_categories=2).state_dict().items()
    }
    weights["conv1.weight"][0, 0] = 1 / 25
    weights["conv1.bias"][0] = 1.0  # brightness in [0, 2] instead of [-1, 1], so that ReLU keeps it
    weights["conv2.weight"][0, 0] = 1 / 25
    halves = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(4) / 8  # 4 rows of 4 columns
    weights["fc1.weight"][0, :16] = halves
    weights["fc1.weight"][1, :16] = -halves
    for unit in (0, 1):
        weights["fc2.weight"][unit, unit] = 1.0
        weights["fc3.weight"][unit, unit] = gain
    return weights


def publish_compass(
    registry: Registry,
    name: str = "compass",
    *,
    gain: float = 2.0,
    report_dir: Path | None = None,
    dataset: DatasetReference | None = None,
) -> ModelVersion:
    """Publishes it as the next version of `name`."""
    draft = ManifestDraft(
        architecture="garment_classifier",
        categories=CATEGORIES,
        preset=get_architecture("garment_classifier").preset,
        origin="uploaded",
        dataset=dataset,
    )
    return registry.publish(name, compass_weights(gain=gain), draft, now=datetime.now(UTC), report_dir=report_dir)
