"""Small images that even a tiny network tells apart: bright ones and dark ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

LABELS = {"bright": 200, "dark": 20}


def write_pictures(directory: Path, *, of_each: int = 12) -> Path:
    """A directory of images for each label."""
    chance = np.random.default_rng(0)
    for label, level in LABELS.items():
        (directory / label).mkdir(parents=True)
        for number in range(of_each):
            pixels = chance.integers(level - 20, level + 20, (28, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(directory / label / f"{number}.png")
    return directory
