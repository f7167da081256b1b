"""Caches the proposals for the images of a dataset, because selective search takes longer than the networks."""

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
    """A directory with one file per image and size, named by the content of the image.

    Many processes may use it at once, and it may be deleted at any time.
    """

    root: Path  # the cache of the dataset version

    def of(self, image: DatasetImage, pixels: Tensor, preset: ScalePreset) -> Tensor:
        """Returns boxes that may contain an object: float32 [P, 4], xyxy in pixels of `pixels`.

        pixels: the decoded `image`, uint8 [3, H, W]. The search uses the scale of the preset, as serving does.
        Raises ProposalsUnavailable.
        """
        height, width = scaled_size(preset, pixels.shape[-2], pixels.shape[-1])
        path = self.root / _DIRECTORY / f"{image.sha256}-{height}x{width}.npy"
        try:
            return torch.from_numpy(np.load(path))
        except (FileNotFoundError, ValueError, EOFError):  # missing or incomplete
            boxes = compute_proposals(scale(preset, pixels))
        boxes *= boxes.new_tensor([pixels.shape[-1] / width, pixels.shape[-2] / height]).repeat(2)
        content = BytesIO()
        np.save(content, boxes.numpy())
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.getvalue())
        return boxes
