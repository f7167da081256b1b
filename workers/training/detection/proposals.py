"""Proposals of a data set's images, found once and kept: selective search takes longer than the networks."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.architectures.region_proposals import compute_proposals
from models.images.presets import scale, scaled_size
from models.manifest import ScalePreset
from models.store.storage import replace_file
from workers.datasets.dataset import DatasetImage

_DIRECTORY = "proposals"


@dataclass(frozen=True, slots=True)
class ProposalCache:
    """One file an image and size, named by its content. May be deleted at any time, and used by many processes."""

    root: Path  # the data set version's cache

    def of(self, image: DatasetImage, pixels: Tensor, preset: ScalePreset) -> Tensor:
        """Boxes that may hold an object, float32 [P, 4] xyxy px of `pixels`, uint8 [3, H, W]: those of `image`.

        They are looked for at the preset's scale, where serving looks for them. Raises ProposalsUnavailable.
        """
        height, width = scaled_size(preset, pixels.shape[-2], pixels.shape[-1])
        path = self.root / _DIRECTORY / f"{image.sha256}-{height}x{width}.npy"
        try:
            return torch.from_numpy(np.load(path))
        except (FileNotFoundError, ValueError, EOFError):  # not there, or not whole
            boxes = compute_proposals(scale(preset, pixels))
        boxes *= boxes.new_tensor([pixels.shape[-1] / width, pixels.shape[-2] / height]).repeat(2)
        content = BytesIO()
        np.save(content, boxes.numpy())
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.getvalue())
        return boxes
