"""Synthetic datasets: bright rectangles and ellipses on dark images, with boxes and masks, or with label maps."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from models.architectures.catalog import get_architecture
from models.manifest import DatasetReference, ScalePreset, Task
from models.masks.coco_masks import box_of_mask, decode_mask, encode_mask
from tests.workers.jobs_builders import a_config
from workers.configs.fine_tune import ResolvedFineTune
from workers.datasets.dataset import (
    DatasetImage,
    DatasetInfo,
    DatasetObject,
    SizeSummary,
    SplitName,
    SplitSummary,
)
from workers.datasets.store import IMAGES_DIRECTORY, DatasetStore

CATEGORIES = ("ellipse", "rectangle")
LABELS = ("background", *CATEGORIES)  # the categories of the segmentation dataset
SIDE_PX = 96
SPLITS: tuple[SplitName, ...] = ("train", "val")


def a_detection_dataset(home: Path, *, train: int = 8, val: int = 4, has_masks: bool = True) -> DatasetReference:
    """Images with one to three shapes; the last image of each split has none."""
    return _publish(home, "detection", {"train": train, "val": val}, has_masks=has_masks)


def a_segmentation_dataset(home: Path, *, train: int = 8, val: int = 4) -> DatasetReference:
    """The same images with label maps: index 0 is the background, and the first and the last row are void."""
    return _publish(home, "segmentation", {"train": train, "val": val}, has_masks=False)


def _publish(home: Path, task: Task, counts: dict[SplitName, int], *, has_masks: bool) -> DatasetReference:
    store = DatasetStore(home / "datasets")
    with store.temporary() as workspace:
        directory = workspace / "version"
        images = {
            split: list(
                _images(
                    directory / IMAGES_DIRECTORY, split, counts[split], has_masks=has_masks or task == "segmentation"
                )
            )
            for split in SPLITS
        }
        if task == "segmentation":
            images = {
                split: [_as_label_map(directory / IMAGES_DIRECTORY, one) for one in images[split]] for split in SPLITS
            }

        def describe(version: int) -> DatasetInfo:
            return DatasetInfo(
                name="shapes",
                version=version,
                created_at=datetime(2026, 1, 1, tzinfo=UTC),
                task=task,
                format="coco" if task == "detection" else "label_masks",
                categories=CATEGORIES if task == "detection" else LABELS,
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


def a_detection_config(dataset: DatasetReference, *, architecture: str = "yolo", **changes: Any) -> ResolvedFineTune:
    """A small detector from random weights, for two epochs."""
    hyperparameters = {"batch_size": 2, "image_size_px": SIDE_PX, "optimizer": "adamw", "learning_rate": 0.001}
    hyperparameters |= changes.pop("hyperparameters", {})
    task = changes.get("task", "detection")
    backbone = {"backbone": "mobilenet_v3_small"}
    values = {
        "task": "detection",
        "architecture": architecture,
        "options": get_architecture(architecture).complete_options(backbone) if task == "detection" else {},
        "categories": CATEGORIES,
        "preset": ScalePreset(shorter_px=SIDE_PX, longer_px=2 * SIDE_PX),
        "hyperparameters": hyperparameters,
    }
    return a_config(dataset=dataset, **{**values, **changes})


def a_segmentation_config(dataset: DatasetReference, **changes: Any) -> ResolvedFineTune:
    """A small segmentation network from random weights, for two epochs."""
    architecture = "lraspp_mobilenet_v3_large"
    return a_detection_config(
        dataset, architecture=architecture, **{"task": "segmentation", "categories": LABELS, **changes}
    )


def _as_label_map(directory: Path, image: DatasetImage) -> DatasetImage:
    labels = np.zeros((image.height, image.width), dtype=np.uint8)
    for each in image.objects:
        assert each.mask is not None
        labels[decode_mask(each.mask, image.height, image.width) > 0] = each.category + 1
    labels[[0, -1], :] = 255
    path = f"{image.path}.labels.png"
    Image.fromarray(labels).save(directory / path)
    return image.model_copy(update={"objects": (), "label_map": path})


def _images(directory: Path, split: SplitName, count: int, *, has_masks: bool) -> Iterator[DatasetImage]:
    (directory / split).mkdir(parents=True)
    for number in range(count):
        shapes = 0 if number == count - 1 else 1 + number % 3
        content, objects = _image(random.Random(f"{split}{number}"), shapes, has_masks=has_masks)
        path = f"{split}/{number:03}.png"
        (directory / path).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        yield DatasetImage(path=path, name=path, objects=objects, width=SIDE_PX, height=SIDE_PX, sha256=sha256)


def _image(randomness: random.Random, shapes: int, *, has_masks: bool) -> tuple[bytes, tuple[DatasetObject, ...]]:
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), (20, 20, 40))
    objects = []
    for number in range(shapes):
        kind = randomness.randrange(2)
        left, top = 4 + number * 30, randomness.randrange(4, 56)
        box = (left, top, left + randomness.randrange(16, 26), top + randomness.randrange(16, 36))
        mask = Image.new("1", image.size)
        for canvas, colour in ((image, (230, 80, 60) if kind else (70, 220, 90)), (mask, 1)):
            draw = ImageDraw.Draw(canvas)
            (draw.rectangle if kind else draw.ellipse)(box, fill=colour)
        counts = encode_mask(np.asarray(mask))
        around = box_of_mask(counts, SIDE_PX, SIDE_PX)
        assert around is not None
        objects.append(DatasetObject(category=kind, box=around, mask=counts if has_masks else None))
    encoded = BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue(), tuple(objects)
