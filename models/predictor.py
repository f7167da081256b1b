"""A network on a device that answers for pictures: synchronous, and the same for a picture in any company."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.architectures.architecture import Architecture, WeightsEntry
from models.architectures.catalog import get_architecture
from models.manifest import AnyPreset, Preset
from models.predictions import ClassScore
from models.presets import normalise, resize_and_crop
from models.registry import ModelVersion, Registry
from models.state_dicts import module_from_state_dict
from models.weights import pretrained


class Predictor:
    """A classification network in evaluation mode with its preset and categories.

    `predict` is `predict_prepared` of `prepare`; the two halves are for callers that decode and batch by themselves.
    May be used by several threads at once.
    """

    def __init__(
        self, module: nn.Module, *, categories: Sequence[str], preset: AnyPreset, device: torch.device | str
    ) -> None:
        self.categories = tuple(categories)
        assert isinstance(preset, Preset)
        self.preset = preset
        self.device = torch.device(device)
        self.module = module.to(self.device).eval().requires_grad_(False)

    @classmethod
    def from_version(cls, registry: Registry, version: ModelVersion, device: torch.device | str) -> Predictor:
        """The registered version.

        Raises CorruptVersion, IncompatibleWeights, UnknownArchitecture, UnsupportedPreset.
        """
        manifest = version.manifest
        architecture = get_architecture(manifest.architecture)
        architecture.check_preset(manifest.preset)
        module = module_from_state_dict(
            architecture,
            registry.state_dict(version),
            num_categories=len(manifest.categories),
            image_size_px=manifest.preset.image_size_px,
        )
        return cls(module, categories=manifest.categories, preset=manifest.preset, device=device)

    @classmethod
    def from_pretrained(
        cls,
        architecture: Architecture,
        entry: WeightsEntry,
        *,
        weights_dir: Path,
        allow_download: bool,
        device: torch.device | str,
    ) -> Predictor:
        """A catalogue architecture with torchvision's weights and categories.

        Raises WeightsUnavailable, UnsafeWeights, IncompatibleWeights.
        """
        module = pretrained(architecture, entry, weights_dir=weights_dir, allow_download=allow_download)
        return cls(module, categories=entry.categories, preset=entry.preset, device=device)

    @property
    def size_bytes(self) -> int:
        """Memory that the parameters and buffers take on the device."""
        return sum(tensor.nbytes for tensor in (*self.module.parameters(), *self.module.buffers()))

    def predict(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Probability of every category for each of `images`, uint8 [3, H, W] of any size: float32 [K] on the CPU."""
        if not images:
            return []
        return list(self.predict_prepared(torch.stack([self.prepare(image) for image in images])))

    def prepare(self, image: Tensor) -> Tensor:
        """`image`, uint8 [3, H, W], as the network looks at it: uint8 [C, crop, crop], on the CPU."""
        return resize_and_crop(self.preset, image)

    @torch.inference_mode()
    def predict_prepared(self, batch: Tensor) -> Tensor:
        """Probabilities, float32 [B, K] on the CPU, for a batch of prepared images, uint8 [B, C, crop, crop]."""
        logits = self.module(normalise(self.preset, batch.to(self.device)))  # [B, K]
        scores: Tensor = logits.float().softmax(dim=1).cpu()  # waits for the device here
        return scores


def top_classes(
    scores: Tensor, categories: Sequence[str], *, k: int | None = None, threshold: float = 0.0
) -> list[ClassScore]:
    """The `k` most probable categories of `scores`, float32 [K], best first; those of at least `threshold` only.

    k: None, or above the number of categories, gives them all.
    """
    count = len(categories) if k is None else min(k, len(categories))
    values, indices = scores.sort(descending=True, stable=True)
    return [
        ClassScore(label=categories[index], index=index, score=value)
        for value, index in zip(values[:count].tolist(), indices[:count].tolist(), strict=True)
        if value >= threshold
    ]
