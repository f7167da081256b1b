"""Proposals of a data set's images, found once and kept: selective search takes longer than the networks."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.architectures.region_proposals import compute_proposals
from models.storage import replace_file
from workers.datasets.dataset import DatasetImage

_DIRECTORY = "proposals"


@dataclass(frozen=True, slots=True)
class ProposalCache:
    """One file an image, named by its content. May be deleted at any time; may be used by many processes at once."""

    root: Path  # the data set version's cache

    def of(self, image: DatasetImage, pixels: Tensor) -> Tensor:
        """Boxes that may hold an object, float32 [P, 4] xyxy px of `pixels`, uint8 [3, H, W]: those of `image`.

        Raises ProposalsUnavailable.
        """
        path = self.root / _DIRECTORY / f"{image.sha256}.npy"
        try:
            return torch.from_numpy(np.load(path))
        except (FileNotFoundError, ValueError):  # not there, or not whole
            boxes = compute_proposals(pixels)
        content = BytesIO()
        np.save(content, boxes.numpy())
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.getvalue())
        return boxes
