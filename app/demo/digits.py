"""Handwritten digits to learn from, and others to be asked about.

1797 images of 8 x 8 pixels that scikit-learn brings along: the test set of Alpaydin & Kaynak 1998, "Optical
Recognition of Handwritten Digits", UCI Machine Learning Repository.
"""

from __future__ import annotations

import random
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

_HELD_OUT_OF_EACH = 36
_SPLIT_SEED = 0
_BRIGHTEST = 16  # of scikit-learn's pixels


@dataclass(frozen=True, kw_only=True)
class Digit:
    """An image and what is on it."""

    name: str
    png: bytes
    label: str


def load_and_split() -> tuple[list[Digit], list[Digit]]:
    """Digits to train on, and 36 of each kind that are kept aside. The same ones every time."""
    by_label: dict[str, list[Digit]] = defaultdict(list)
    found = load_digits()
    for number, (pixels, target) in enumerate(zip(found.images, found.target, strict=True)):
        label = str(target)
        by_label[label].append(Digit(name=f"{number:04}.png", png=_png(pixels), label=label))
    shuffled = random.Random(_SPLIT_SEED)  # noqa: S311 (no secret)
    training: list[Digit] = []
    held_out: list[Digit] = []
    for _, digits in sorted(by_label.items()):
        shuffled.shuffle(digits)
        held_out += digits[:_HELD_OUT_OF_EACH]
        training += digits[_HELD_OUT_OF_EACH:]
    return training, held_out


def write_samples(directory: Path) -> int:
    """Writes the digits to train on to `digits/LABEL/`, and one of each kind that is kept aside to `new/LABEL.png`.

    Returns how many there are to train on.
    """
    training, held_out = load_and_split()
    files = {directory / "digits" / digit.label / digit.name: digit.png for digit in training}
    files |= {directory / "new" / f"{digit.label}.png": digit.png for digit in held_out}
    for path, png in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
    return len(training)


def write_image_folder(digits: list[Digit], archive: Path) -> None:
    """A zip with one directory a label."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for digit in digits:
            packed.writestr(f"digits/{digit.label}/{digit.name}", digit.png)


def grey_levels(png: bytes) -> list[list[int]]:
    """The image's rows, 0 (black) to 255."""
    with Image.open(BytesIO(png)) as picture:
        rows: list[list[int]] = np.asarray(picture.convert("L")).tolist()
    return rows


def _png(pixels: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> bytes:
    grey = np.round(pixels / _BRIGHTEST * 255).astype(np.uint8)
    encoded = BytesIO()
    Image.fromarray(grey).save(encoded, "PNG")
    return encoded.getvalue()
