"""Regions that training ignores: crowds and difficult objects are neither targets nor background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.architectures.catalog import get_architecture
from models.manifest import ScalePreset
from models.masks.coco_masks import encode_mask
from workers.datasets.dataset import DatasetImage, DatasetObject
from workers.training.detection.ignored_regions import blank_ignored
from workers.training.detection.images import DetectionImages


def image_of(*objects: DatasetObject) -> DatasetImage:
    return DatasetImage(path="0.png", name="0.png", objects=objects, width=40, height=30, sha256="0")


def pixels() -> torch.Tensor:
    """uint8 [3, 30, 40], left half 0, right half 200: the mean is 100."""
    values = torch.zeros((3, 30, 40), dtype=torch.uint8)
    values[:, :, 20:] = 200
    return values


GOOD = DatasetObject(category=0, box=(20, 10, 30, 20))


@pytest.mark.parametrize("mark", [{"is_crowd": True}, {"is_difficult": True}])
def test_ignored_box_gets_the_mean_colour_except_for_other_objects(mark: dict[str, bool]) -> None:
    ignored = DatasetObject(category=1, box=(24.5, 5, 36, 30), **mark)
    blanked = blank_ignored(pixels(), image_of(GOOD, ignored))

    expected = pixels()
    expected[:, 5:30, 24:36] = 100
    expected[:, 10:20, 20:30] = 200
    assert torch.equal(blanked, expected)


def test_mask_of_a_crowd_is_blanked_and_not_its_whole_box() -> None:
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[0:5, 30:40] = 1
    crowd = DatasetObject(category=0, box=(20, 0, 40, 30), is_crowd=True, mask=encode_mask(mask))
    blanked = blank_ignored(pixels(), image_of(crowd))

    assert (blanked[:, 0:5, 30:40] == 100).all()
    assert (blanked[:, 5:, 30:40] == 200).all()


def test_image_without_ignored_objects_is_unchanged() -> None:
    before = pixels()

    assert blank_ignored(before, image_of(GOOD)) is before


@pytest.fixture
def images(tmp_path: Path) -> DetectionImages:
    Image.fromarray(pixels().permute(1, 2, 0).numpy()).save(tmp_path / "0.png")
    preset = get_architecture("yolo").preset
    assert isinstance(preset, ScalePreset)
    crowd = DatasetObject(category=0, box=(0, 0, 10, 10), is_crowd=True)
    difficult = DatasetObject(category=0, box=(30, 20, 40, 30), is_difficult=True)
    return DetectionImages(images=(image_of(GOOD, crowd, difficult),), root=tmp_path, preset=preset, with_masks=False)


def test_training_sees_neither_crowds_nor_difficult_objects(images: DetectionImages) -> None:
    sample = images.read_for_training(0)

    assert sample.boxes.tolist() == [[20, 10, 30, 20]]
    assert (sample.image[:, :10, :10] == 100).all()
    assert (sample.image[:, 20:, 30:] == 100).all()
    assert torch.equal(images.learned(0).labels, torch.tensor([1]))


def test_evaluation_sees_the_image_as_it_is(images: DetectionImages) -> None:
    assert torch.equal(images.read(0).image, pixels())
