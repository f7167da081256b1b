from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from models.architectures.catalog import build
from models.architectures.detector_parts import as_batch, best_detections
from models.architectures.task_aligned_assignment import assign
from models.architectures.yolo_modern import boxes_from_distances, quality_focal_loss
from models.architectures.yolo_v1 import YoloV1, objects_of_cells, paired_overlaps

SMALL = {"backbone": "mobilenet_v3_small"}


def cells(side: int, stride: int) -> tuple[Tensor, Tensor]:
    """Centres and strides of a grid of side x side cells."""
    middles = (torch.arange(side) + 0.5) * stride
    return torch.cartesian_prod(middles, middles).flip(1), torch.full((side**2,), float(stride))


def rectangles(seed: int, *, size_px: int = 64) -> tuple[Tensor, dict[str, Tensor]]:
    """A grey image with a red (1) and a blue (2) rectangle."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.full((3, size_px, size_px), 0.5)
    boxes, labels = [], []
    for label, channel, left in ((1, 0, 0), (2, 2, size_px // 2)):
        width, height = torch.randint(12, size_px // 2 - 4, (2,), generator=generator).tolist()
        x = left + int(torch.randint(0, size_px // 2 - width, (), generator=generator))
        y = int(torch.randint(0, size_px - height, (), generator=generator))
        image[:, y : y + height, x : x + width] = 0.1
        image[channel, y : y + height, x : x + width] = 0.9
        boxes.append([float(x), float(y), float(x + width), float(y + height)])
        labels.append(label)
    return image, {"boxes": torch.tensor(boxes), "labels": torch.tensor(labels)}


@pytest.mark.usefixtures("one_thread")
def test_modern_learns_coloured_rectangles_from_scratch() -> None:
    torch.manual_seed(0)
    module = build("yolo", num_categories=2, image_size_px=64, options=SMALL)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    for step in range(60):
        images, targets = zip(*(rectangles(8 * step + one) for one in range(8)), strict=True)
        optimizer.zero_grad()
        sum(module(list(images), list(targets)).values()).backward()
        optimizer.step()

    image, target = rectangles(10_000)
    with torch.inference_mode():
        (found,) = module.eval()([image])

    for label in (1, 2):
        best = found["boxes"][found["labels"] == label][0]
        wanted = target["boxes"][target["labels"] == label]
        assert float(paired_overlaps(best[None, None], wanted)) > 0.5


def test_quality_focal_loss_is_the_papers() -> None:
    logits, quality = torch.tensor([0.0, 2.0]), torch.tensor([0.8, 0.0])
    sure = 1 / (1 + math.exp(-2))

    loss = quality_focal_loss(logits, quality)

    assert loss.tolist() == pytest.approx([0.3**2 * math.log(2), sure**2 * -math.log(1 - sure)], rel=1e-5)


def test_quality_focal_loss_is_zero_where_the_score_is_the_quality() -> None:
    assert float(quality_focal_loss(torch.tensor(0.0), torch.tensor(0.5))) == 0


def test_distances_are_strides_from_the_cells_centre() -> None:
    box = boxes_from_distances(torch.tensor([[1.0, 2.0, 3.0, 0.5]]), torch.tensor([[20.0, 28.0]]), torch.tensor([8.0]))

    assert box.tolist() == [[12.0, 12.0, 44.0, 32.0]]


def test_cells_of_an_object_are_those_inside_it_and_the_best_scores_its_overlap() -> None:
    centres, strides = cells(4, 8)
    boxes = torch.cat((centres - 8, centres + 8), dim=1)

    assignment = assign(
        scores=torch.full((16, 2), 0.1),
        boxes=boxes,
        centres=centres,
        strides=strides,
        target_boxes=torch.tensor([[0.0, 0.0, 16.0, 16.0]]),
        target_labels=torch.tensor([1]),
    )

    assert (assignment.objects >= 0).nonzero().flatten().tolist() == [0, 1, 4, 5]
    # Predictions of 16 x 16 px around (4, 4), one 4 px off in x and y: 12 * 12 / (2 * 256 - 144).
    assert assignment.quality[0] == pytest.approx(144 / 368)
    assert float(assignment.quality.max()) == pytest.approx(144 / 368)


def test_object_smaller_than_a_cell_has_the_cell_it_lies_in() -> None:
    centres, strides = cells(4, 8)
    boxes = torch.cat((centres - 4, centres + 4), dim=1)

    assignment = assign(
        scores=torch.full((16, 1), 0.01),
        boxes=boxes,
        centres=centres,
        strides=strides,
        target_boxes=torch.tensor([[9.0, 1.0, 11.0, 3.0]]),
        target_labels=torch.tensor([0]),
    )

    assert assignment.objects.tolist() == [-1, 0, *[-1] * 14]
    assert assignment.quality[1] == pytest.approx(4 / 64)


def test_cell_of_two_objects_answers_for_the_one_it_overlaps_most() -> None:
    centres, strides = cells(1, 32)

    assignment = assign(
        scores=torch.full((1, 1), 0.5),
        boxes=torch.tensor([[8.0, 8.0, 24.0, 24.0]]),
        centres=centres,
        strides=strides,
        target_boxes=torch.tensor([[0.0, 0.0, 32.0, 32.0], [8.0, 8.0, 24.0, 26.0]]),
        target_labels=torch.tensor([0, 0]),
    )

    assert assignment.objects.tolist() == [1]


def test_thousands_of_objects_are_assigned_piece_by_piece() -> None:
    centres, strides = cells(32, 8)
    corners = torch.rand(1500, 2, generator=torch.Generator().manual_seed(0)) * 240

    assignment = assign(
        scores=torch.full((1024, 1), 0.1),
        boxes=torch.cat((centres - 8, centres + 8), dim=1),
        centres=centres,
        strides=strides,
        target_boxes=torch.cat((corners, corners + 16), dim=1),
        target_labels=torch.zeros(1500, dtype=torch.int64),
    )

    answering = assignment.objects >= 0
    assert int(answering.sum()) > 800
    assert int(assignment.objects.max()) > 1024
    boxes = torch.cat((corners, corners + 16), dim=1)[assignment.objects[answering]]
    assert bool(((centres[answering] - (boxes[:, :2] + boxes[:, 2:]) / 2).abs() <= 8).all())
    assert bool((assignment.quality[answering] > 0).all())
    assert float(assignment.quality.max()) <= 1


def test_image_without_objects_is_all_background() -> None:
    centres, strides = cells(2, 8)

    assignment = assign(
        scores=torch.full((4, 1), 0.5),
        boxes=torch.zeros(4, 4),
        centres=centres,
        strides=strides,
        target_boxes=torch.zeros(0, 4),
        target_labels=torch.zeros(0, dtype=torch.int64),
    )

    assert assignment.objects.tolist() == [-1] * 4
    assert not assignment.quality.any()


def test_v1_cell_of_two_objects_answers_for_the_larger() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.1, 0.1, 0.3, 0.3], [0.8, 0.1, 1.0, 0.3]])

    found, objects = objects_of_cells(boxes, 2)

    assert sorted(zip(found.tolist(), objects.tolist(), strict=True)) == [(0, 0), (1, 2)]


def test_v1_overlaps_are_of_each_row() -> None:
    predicted = torch.tensor([[[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 6.0, 6.0]]])

    overlaps = paired_overlaps(predicted, torch.tensor([[0.0, 0.0, 2.0, 2.0]]))

    assert overlaps.tolist() == [pytest.approx([1, 1 / 7, 0])]


class _Fixed(nn.Module):
    """Answers with the same numbers whatever it is asked."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.values.expand(len(hidden), -1)


def v1_that_answers(values: Tensor) -> YoloV1:
    module = cast("YoloV1", build("yolo", num_categories=1, image_size_px=64, options={"variant": "v1", **SMALL}))
    assert module.grid == 1
    module.answers = _Fixed(values)  # type: ignore[assignment]
    return module


def test_v1_loss_is_equation_3() -> None:
    # One cell: two boxes of x, y, sqrt(w), sqrt(h), confidence, then the probability of the category.
    module = v1_that_answers(torch.tensor([0.5, 0.5, 0.5, 0.5, 0.4, 0.1, 0.1, 0.1, 0.1, 0.2, 0.7]))
    # Twice as wide as high, its middle in the image's: w = 0.5, h = 0.25.
    target = {"boxes": torch.tensor([[16.0, 24.0, 48.0, 40.0]]), "labels": torch.tensor([1])}

    losses = module([torch.zeros(3, 64, 64)] * 2, [target, target])

    # The first box, 0.25 x 0.25, lies in the object: it is responsible.
    overlap = 0.25**2 / (0.5 * 0.25)
    assert float(losses["loss_boxes"].detach()) == pytest.approx(5 * (math.sqrt(0.5) - 0.5) ** 2, rel=1e-5)
    assert float(losses["loss_confidence"].detach()) == pytest.approx((0.4 - overlap) ** 2 + 0.5 * 0.2**2, rel=1e-5)
    assert float(losses["loss_categories"].detach()) == pytest.approx((0.7 - 1) ** 2, rel=1e-5)


def test_v1_without_objects_learns_only_that_there_are_none() -> None:
    module = v1_that_answers(torch.tensor([0.5, 0.5, 0.5, 0.5, 0.4, 0.1, 0.1, 0.1, 0.1, 0.2, 0.7]))
    negative = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}

    losses = {key: float(loss.detach()) for key, loss in module([torch.zeros(3, 64, 64)] * 2, [negative] * 2).items()}

    assert losses == {
        "loss_boxes": 0.0,
        "loss_confidence": pytest.approx(0.5 * (0.4**2 + 0.2**2), rel=1e-5),
        "loss_categories": 0.0,
    }


def test_v1_answers_in_pixels_of_the_image_it_was_given() -> None:
    module = v1_that_answers(torch.tensor([0.5, 0.5, math.sqrt(0.5), 0.5, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5])).eval()

    with torch.inference_mode():
        (found,) = module([torch.zeros(3, 100, 200)])

    assert found["boxes"].tolist() == [pytest.approx([50, 37.5, 150, 62.5], abs=1e-3)]
    assert (found["labels"].tolist(), found["scores"].tolist()) == ([1], pytest.approx([0.4]))


@pytest.mark.parametrize("variant", ["modern", "v1"])
def test_targets_that_make_no_sense_are_refused(variant: str) -> None:
    module = build("yolo", num_categories=2, image_size_px=64, options={"variant": variant, **SMALL})
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    flat = {"boxes": torch.tensor([[1.0, 1.0, 1.0, 5.0]]), "labels": torch.tensor([1])}

    with pytest.raises(ValueError, match="every image"):
        module(images)
    with pytest.raises(ValueError, match="above 0"):
        module(images, [empty, flat])


def test_batch_is_normalised_and_padded_to_a_multiple() -> None:
    batch = as_batch([torch.full((3, 20, 40), 0.5), torch.zeros(3, 33, 10)], multiple_px=32)

    assert batch.shape == (2, 3, 64, 64)
    assert batch[0, 0, 0, 0] == pytest.approx((0.5 - 0.485) / 0.229)
    assert not batch[0, :, 20:].any()
    assert not batch[1, :, :, 10:].any()


def test_best_detections_are_clipped_suppressed_and_sorted() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [-5, 5, 200, 20], [300, 0, 310, 10]])
    scores = torch.tensor([[0.5, 0.0], [0.6, 0.3], [0.0, 0.9], [0.9, 0.0]])

    found = best_detections(boxes, scores, height=50, width=100)

    assert found["labels"].tolist() == [2, 1, 2]
    assert found["scores"].tolist() == pytest.approx([0.9, 0.6, 0.3])
    assert found["boxes"].tolist() == [[0, 5, 100, 20], [0, 0, 10, 9], [0, 0, 10, 9]]


def test_best_detections_of_boxes_for_each_category_take_that_categorys() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]]])

    found = best_detections(boxes, torch.tensor([[0.0, 0.5]]), height=50, width=50)

    assert (found["boxes"].tolist(), found["labels"].tolist()) == ([[20, 20, 30, 30]], [2])
