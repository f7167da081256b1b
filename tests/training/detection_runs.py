"""Detection data sets made here: bright rectangles and ellipses on dark pictures, with their boxes and masks."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from models.manifest import DatasetReference, ScalePreset
from models.masks import box_of_mask, encode_mask
from tests.workers.jobs_builders import a_config
from workers.datasets.dataset import (
    DatasetImage,
    DatasetInfo,
    DatasetObject,
    SizeSummary,
    SplitName,
    SplitSummary,
)
from workers.datasets.store import IMAGES_DIRECTORY, DatasetStore
from workers.fine_tune_config import ResolvedFineTune

CATEGORIES = ("ellipse", "rectangle")
SIDE_PX = 96
SPLITS: tuple[SplitName, ...] = ("train", "val")


def a_detection_dataset(home: Path, *, train: int = 8, val: int = 4, has_masks: bool = True) -> DatasetReference:
    """Pictures of one to three shapes; the last of each split has none."""
    store = DatasetStore(home / "datasets")
    counts = {"train": train, "val": val}
    with store.temporary() as workspace:
        directory = workspace / "version"
        images = {
            split: list(_images(directory / IMAGES_DIRECTORY, split, counts[split], has_masks=has_masks))
            for split in SPLITS
        }

        def describe(version: int) -> DatasetInfo:
            return DatasetInfo(
                name="shapes",
                version=version,
                created_at=datetime(2026, 1, 1, tzinfo=UTC),
                task="detection",
                format="coco",
                categories=CATEGORIES,
                has_masks=has_masks,
                splits={split: SplitSummary(images=counts[split], images_by_category={}) for split in SPLITS},
                sizes=SizeSummary(
                    width_min=SIDE_PX,
                    width_median=SIDE_PX,
                    width_max=SIDE_PX,
                    height_min=SIDE_PX,
                    height_median=SIDE_PX,
                    height_max=SIDE_PX,
                ),
                size_bytes=1,
                fingerprint="0" * 64,
                validation_fraction=None,
                seed=0,
                report=(),
            )

        return store.publish("shapes", directory, images=images, describe=describe).info.reference


def a_detection_config(
    dataset: DatasetReference, *, architecture: str = "fasterrcnn_fpn", **changes: object
) -> ResolvedFineTune:
    """A small detector from random weights, for two epochs."""
    hyperparameters = {"batch_size": 2, "image_size_px": SIDE_PX, "optimizer": "adamw", "learning_rate": 0.001}
    hyperparameters |= changes.pop("hyperparameters", {})  # type: ignore[call-overload]
    values = {
        "task": "detection",
        "architecture": architecture,
        "options": {"backbone": "mobilenet_v3_small"} if architecture.endswith("_fpn") else {},
        "categories": CATEGORIES,
        "preset": ScalePreset(shorter_px=SIDE_PX, longer_px=2 * SIDE_PX),
        "hyperparameters": hyperparameters,
    }
    return a_config(dataset=dataset, **{**values, **changes})


def _images(directory: Path, split: SplitName, count: int, *, has_masks: bool) -> Iterator[DatasetImage]:
    (directory / split).mkdir(parents=True)
    for number in range(count):
        shapes = 0 if number == count - 1 else 1 + number % 3
        content, objects = _picture(random.Random(f"{split}{number}"), shapes, has_masks=has_masks)
        path = f"{split}/{number:03}.png"
        (directory / path).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        yield DatasetImage(path=path, name=path, objects=objects, width=SIDE_PX, height=SIDE_PX, sha256=sha256)


def _picture(randomness: random.Random, shapes: int, *, has_masks: bool) -> tuple[bytes, tuple[DatasetObject, ...]]:
    picture = Image.new("RGB", (SIDE_PX, SIDE_PX), (20, 20, 40))
    objects = []
    for number in range(shapes):
        kind = randomness.randrange(2)
        left, top = 4 + number * 30, randomness.randrange(4, 56)
        box = (left, top, left + randomness.randrange(16, 26), top + randomness.randrange(16, 36))
        mask = Image.new("1", picture.size)
        for canvas, colour in ((picture, (230, 80, 60) if kind else (70, 220, 90)), (mask, 1)):
            draw = ImageDraw.Draw(canvas)
            (draw.rectangle if kind else draw.ellipse)(box, fill=colour)
        counts = encode_mask(np.asarray(mask))
        around = box_of_mask(counts, SIDE_PX, SIDE_PX)
        assert around is not None
        objects.append(DatasetObject(category=kind, box=around, mask=counts if has_masks else None))
    encoded = BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue(), tuple(objects)
