"""Small pictures that even a tiny network tells apart: bright ones and dark ones."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

LABELS = {"bright": 200, "dark": 20}


def write_pictures(directory: Path, *, of_each: int = 12) -> Path:
    """A directory of pictures for each label."""
    for label, level in LABELS.items():
        (directory / label).mkdir(parents=True)
        for number in range(of_each):
            picture = Image.new("RGB", (32, 28), (level + number, level, level - number))
            picture.save(directory / label / f"{number}.png")
    return directory
