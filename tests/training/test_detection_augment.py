"""Views of images with boxes and masks: all of them change together and stay valid."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from models.manifest import ScalePreset
from workers.training.detection.augment import DetectionSample, augment, mirrored, view_sample
from workers.training.views import View, whole_view

PRESET = ScalePreset(shorter_px=64, longer_px=128)


def a_sample(*boxes: tuple[int, int, int, int], height: int = 80, width: int = 120) -> DetectionSample:
    """White rectangles on black, so that the pixels show where the boxes must be."""
    image, masks = torch.zeros(3, height, width, dtype=torch.uint8), []
    for x_min, y_min, x_max, y_max in boxes:
        image[:, y_min:y_max, x_min:x_max] = 255
        mask = torch.zeros(height, width, dtype=torch.uint8)
        mask[y_min:y_max, x_min:x_max] = 1
        masks.append(mask)
    return DetectionSample(
        image=image,
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(1, len(boxes) + 1),
        masks=torch.stack(masks) if masks else torch.zeros(0, height, width, dtype=torch.uint8),
        proposals=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
    )


def extent(pixels: Tensor) -> Tensor:
    """The box, xyxy, around all pixels of [h, w] that are not 0."""
    rows, columns = (pixels > 0).nonzero().unbind(1)
    return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


def test_whole_view_scales_image_boxes_masks_and_proposals() -> None:
    sample = a_sample((30, 20, 60, 60))
    seen = view_sample(sample, whole_view(PRESET, 80, 120))

    assert seen.image.shape == (3, 64, 96)
    assert torch.allclose(seen.boxes, torch.tensor([[24.0, 16, 48, 48]]))
    assert torch.allclose(extent(seen.image[0] > 127), seen.boxes[0], atol=1)
    assert isinstance(seen.masks, Tensor)
    assert torch.allclose(extent(seen.masks[0]), seen.boxes[0], atol=1)
    assert seen.proposals is not None
    assert torch.equal(seen.proposals, seen.boxes)


def test_barely_visible_object_is_dropped_and_its_neighbour_is_clipped() -> None:
    sample = a_sample((0, 0, 40, 40), (50, 10, 110, 50))
    seen = view_sample(sample, View(top=0, left=35, height=80, width=60, size=(80, 60)))

    assert seen.labels.tolist() == [2]
    assert seen.boxes.tolist() == [[15.0, 10.0, 60.0, 50.0]]


def test_mirror_image_keeps_boxes_on_their_objects() -> None:
    seen = mirrored(a_sample((10, 20, 40, 60)))

    assert seen.boxes.tolist() == [[80.0, 20.0, 110.0, 60.0]]
    assert torch.equal(extent(seen.image[0]), seen.boxes[0])
    assert isinstance(seen.masks, Tensor)
    assert torch.equal(extent(seen.masks[0]), seen.boxes[0])


def test_random_views_keep_boxes_inside_and_on_their_objects() -> None:
    sample = a_sample((30, 20, 60, 60))
    for seed in range(50):
        seen = augment(PRESET, sample, Generator().manual_seed(seed))
        height, width = seen.image.shape[-2:]
        assert len(seen.boxes) == 1  # a view without objects is not chosen
        assert bool((seen.boxes >= 0).all())
        assert bool((seen.boxes[:, 0::2] <= width).all())
        assert bool((seen.boxes[:, 1::2] <= height).all())
        assert torch.allclose(extent(seen.image.float().mean(0) > 60), seen.boxes[0], atol=2.5)


def test_same_seed_gives_the_same_view() -> None:
    sample = a_sample((30, 20, 60, 60), (70, 10, 100, 70))
    one, other = (augment(PRESET, sample, Generator().manual_seed(7)) for _ in range(2))

    assert torch.equal(one.image, other.image)
    assert torch.equal(one.boxes, other.boxes)


def test_image_without_objects_keeps_none() -> None:
    seen = augment(PRESET, a_sample(), Generator().manual_seed(1))

    assert seen.boxes.shape == (0, 4)
    assert isinstance(seen.masks, Tensor)
    assert seen.masks.shape == (0, *seen.image.shape[-2:])


def test_preset_without_aspect_always_gives_the_same_size() -> None:
    preset = ScalePreset(shorter_px=96, longer_px=96, keeps_aspect=False)
    sizes = {
        tuple(augment(preset, a_sample((30, 20, 60, 60)), Generator().manual_seed(seed)).image.shape)
        for seed in range(20)
    }
    assert sizes == {(3, 96, 96)}
