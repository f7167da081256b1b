"""Networks as they are served: uint8 pixels [B, C, h, w] in, results out.

Preprocessing is part of the graph, so that a compiler fuses it with the first layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from models.backends.detection.split import split
from models.images.presets import normalise
from models.manifest import AnyPreset


class ClassificationGraph(nn.Module):
    """Returns the probability of every category, float32 [B, K]."""

    def __init__(self, module: nn.Module, preset: AnyPreset) -> None:
        super().__init__()
        self.module = module
        self.preset = preset

    def forward(self, batch: Tensor) -> Tensor:
        """batch: uint8 [B, C, h, w]."""
        logits: Tensor = self.module(_seen(self, batch, self.preset))  # [B, K]
        return logits.float().softmax(dim=1)


class SegmentationGraph(nn.Module):
    """Returns the logits of every category, float32 [B, K, h, w]."""

    def __init__(self, module: nn.Module, preset: AnyPreset) -> None:
        super().__init__()
        self.module = module
        self.preset = preset

    def forward(self, batch: Tensor) -> Tensor:
        """batch: uint8 [B, C, h, w]."""
        outputs: Mapping[str, Tensor] = self.module(_seen(self, batch, self.preset))
        return outputs["out"].float().contiguous()


class DetectionGraph(nn.Module):
    """Returns torchvision's dict for every image. Detectors normalise images themselves.

    `split` is the detector taken apart, see models.backends.detection; None if the module runs as a whole.
    """

    def __init__(self, module: nn.Module, preset: AnyPreset) -> None:
        super().__init__()
        self.preset = preset
        self.split = split(module)
        self.module = module if self.split is None else self.split.module

    def forward(self, batch: Tensor) -> list[dict[str, Tensor]]:
        """batch: uint8 [B, C, h, w]."""
        if self.split is not None:
            return self.split.detect(batch, self.split.networks)
        return cast("list[dict[str, Tensor]]", self.module(list(batch.to(torch.float32).div_(255))))


Graph = ClassificationGraph | SegmentationGraph | DetectionGraph


def _seen(graph: nn.Module, batch: Tensor, preset: AnyPreset) -> Tensor:
    """Normalises the batch, in the dtype of the network's weights."""
    dtype = next((tensor.dtype for tensor in graph.parameters()), torch.float32)
    return normalise(preset, batch).to(dtype, memory_format=torch.channels_last)
